"""Who is told how a job ended: a command by its input, a webhook by POST; neither can make the job fail."""

import http.server
import json
import logging
import sys
import threading

import pytest

from daskumap.errors import ParameterError
from daskumap.jobs import notify as telling
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
        seen, failures = [], 0

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            Hook.seen.append((self.path, self.headers["Content-Type"], json.loads(body)))
            self.send_response(500 if len(Hook.seen) <= Hook.failures else 204)
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
        ({"webhook": "nonsense"}, "ValueError"),
    ],
)
def test_who_cannot_be_told_does_not_make_the_job_fail(notify, said, caplog):
    telling.notify(job(**notify, retries=0), SUMMARY)
    assert said in caplog.text


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
