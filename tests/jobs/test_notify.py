"""Who is told how a job ended: a command by its input, a webhook by POST; neither can make the job fail."""

import http.server
import json
import logging
import sys
import threading
import time

import pytest

from daskumap.errors import ParameterError
from daskumap.jobs import notify as telling
from daskumap.jobs.reading import read_job
from daskumap.jobs.schema import Job, Notify
from daskumap.jobs.summary import Summary

SUMMARY = Summary("nightly", "finished", "maps/x.zarr", rows=300)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr(telling, "PAUSE", 0.0)


@pytest.fixture
def hook():
    """A webhook on the loopback that fails as often as it is told to."""

    class Hook(http.server.BaseHTTPRequestHandler):
        seen, failures, moved = [], 0, False

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            Hook.seen.append((self.path, self.headers["Content-Type"], json.loads(body)))
            fails = len(Hook.seen) <= Hook.failures
            self.send_response(500 if fails else 302 if Hook.moved else 204)
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def do_GET(self):
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_): ...

    server = http.server.HTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Hook.url = f"http://127.0.0.1:{server.server_port}/T0P/SECRET"
    yield Hook
    server.shutdown()
    server.server_close()


def job(**notify):
    return Job(source="x", run="y", notify=[Notify(**notify)])


def test_a_command_gets_the_summary(tmp_path):
    code = f"import sys; open({str(tmp_path / 'said')!r}, 'w').write(sys.stdin.read())"
    telling.notify(job(command=[sys.executable, "-c", code]), SUMMARY)
    assert json.loads((tmp_path / "said").read_text()) == SUMMARY.as_json()


def test_a_webhook_gets_the_summary(hook):
    telling.notify(job(webhook=hook.url), SUMMARY)
    assert hook.seen == [("/T0P/SECRET", "application/json", SUMMARY.as_json())]


def test_a_webhook_that_fails_is_tried_again_and_its_address_is_not_told(hook, caplog):
    hook.failures = 5
    with caplog.at_level(logging.WARNING, "daskumap"):
        telling.notify(job(webhook=hook.url, retries=2), SUMMARY)
    assert len(hook.seen) == 3
    assert "attempt 3 of 3: it answered 500" in caplog.text
    assert "SECRET" not in caplog.text
    hook.failures = 4
    telling.notify(job(webhook=hook.url), SUMMARY)
    assert len(hook.seen) == 5


@pytest.mark.parametrize(
    ("notify", "said"),
    [
        ({"command": [sys.executable, "-c", "exit('no mail here')"]}, "exit code 1: no mail here"),
        ({"command": ["/no/such/program"]}, "FileNotFoundError"),
        ({"command": ["sleep", "60"], "timeout": 0.2}, "longer than 0.2 s"),
        ({"webhook": "http://127.0.0.1:9/x"}, "Connection refused"),
        ({"command": [sys.executable, "-c", "import os; os.kill(os.getpid(), 15)"]}, "killed by signal 15"),
        ({"command": ["sh", "-c", "echo -H $0 >&2; exit 3", "hunter22"]}, "exit code 3: -H ..."),
    ],
)
def test_who_cannot_be_told_does_not_make_the_job_fail(notify, said, caplog):
    telling.notify(job(**notify, retries=0), SUMMARY)
    assert said in caplog.text
    assert "hunter22" not in caplog.text


def test_children_of_a_command_hold_nothing_up(caplog):
    began = time.monotonic()
    telling.notify(job(command=["sh", "-c", "sleep 60 & wait"], timeout=0.5, retries=0), SUMMARY)
    assert "longer than 0.5 s" in caplog.text
    telling.notify(job(command=["sh", "-c", "sleep 60 &"], timeout=20, retries=0), SUMMARY)  # it may stay
    assert time.monotonic() - began < 30
    assert caplog.text.count("could not be told") == 1


def test_a_command_runs_in_the_folder_of_the_job(tmp_path, monkeypatch):
    (tmp_path / "job.yaml").write_text(
        "source: x\nrun: y\nnotify: [{command: [sh, -c, 'cat > told.json']}, {command: [./tell.sh]}]\n"
    )
    (tmp_path / "tell.sh").write_text("#!/bin/sh\ncat > also.json\n")
    (tmp_path / "tell.sh").chmod(0o755)
    monkeypatch.chdir("/")
    telling.notify(read_job(tmp_path / "job.yaml"), SUMMARY)
    assert json.loads((tmp_path / "told.json").read_text())["job"] == "nightly"
    assert json.loads((tmp_path / "also.json").read_text())["job"] == "nightly"


def test_values_of_the_environment_are_in_no_log(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("TOKEN", "token-12345")
    (tmp_path / "job.yaml").write_text(
        "source: x\nrun: y\nnotify: [{retries: 0, command: [sh, -c, 'echo not ${TOKEN}; exit 1']}]\n"
    )
    telling.notify(read_job(tmp_path / "job.yaml"), SUMMARY)
    assert "exit code 1: not ${TOKEN}" in caplog.text
    assert "12345" not in caplog.text


def test_a_webhook_that_moved_was_not_told(hook, caplog):
    hook.moved = True
    telling.notify(job(webhook=hook.url, retries=0), SUMMARY)
    assert "it answered 302" in caplog.text
    assert len(hook.seen) == 1


@pytest.mark.parametrize(
    ("on", "states"),
    [
        ("news", {"finished", "failed", "stopped"}),
        ("always", {"finished", "failed", "stopped", "unchanged"}),
        ("failure", {"failed", "stopped"}),
    ],
)
def test_who_wants_to_hear_what(on, states):
    one = Notify(command=["x"], on=on)
    assert {s for s in ("finished", "failed", "stopped", "unchanged") if telling.is_wanted(one, s)} == states


def test_a_notification_needs_somebody():
    with pytest.raises((ParameterError, ValueError), match="either a command or a webhook"):
        Notify()
