"""Tells people or programs how a job ended; whoever cannot be told does not make the job fail."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from daskumap import events
from daskumap.jobs.files import SHORT, hide_used
from daskumap.jobs.schema import Job, Notify
from daskumap.jobs.summary import Summary
from daskumap.secrets import hide_secrets

# Seconds before the second attempt; each later pause is twice as long.
PAUSE = 1.0
# Of what a program said that failed, as much stands in the log.
SAID = 500


def notify(job: Job, summary: Summary) -> None:
    """Tell all that a job names, where they want to hear of such an end."""
    for one in job.notify:
        if is_wanted(one, summary.state):
            _tell(job, one, json.dumps(summary.as_json()).encode())


def is_wanted(one: Notify, state: str) -> bool:
    """Return whether somebody wants to hear of a job that ended so."""
    if one.on == "always":
        return True
    return state in ("failed", "stopped") or (one.on == "news" and state != "unchanged")


def _tell(job: Job, one: Notify, message: bytes) -> None:
    called = _name(one)
    for attempt in range(one.retries + 1):
        if attempt:
            time.sleep(PAUSE * 2 ** (attempt - 1))
        try:
            _post(one, message) if one.webhook else _run(one, message, job.folder)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            failure = hide_secrets(_hidden(_reason(one, error), job, one))
            events.tell(
                "notification",
                f"{called} could not be told, attempt {attempt + 1} of {one.retries + 1}: {failure}",
                logging.WARNING,
                to=called,
                attempt=attempt + 1,
                error=failure,
            )
        else:
            events.tell("notification", f"{called} was told", to=called, attempt=attempt + 1)
            return


def _name(one: Notify) -> str:
    """Return what a log may say of who is told: the path of a webhook is often its password."""
    if one.command:
        return f"the command {one.command[0]}"
    parts = urlsplit(one.webhook or "")
    return f"the webhook {parts.scheme}://{parts.hostname}"


class _Stays(urllib.request.HTTPRedirectHandler):
    """Follows no redirection: it would turn the POST into a GET, which tells nobody anything."""

    def redirect_request(self, *_: Any) -> None:
        """Return no request, so that the answer is an error."""


def _post(one: Notify, message: bytes) -> None:
    request = urllib.request.Request(
        str(one.webhook), message, {"Content-Type": "application/json", "User-Agent": "daskumap"}
    )
    # That it answered is all that counts; what else it says may never end.
    urllib.request.build_opener(_Stays).open(request, timeout=one.timeout).close()


def _run(one: Notify, message: bytes, folder: Path) -> None:
    """Run a command in the folder of the job; what it started and left does not hold up the job.

    All that it says goes to a file: a pipe would be waited for as long as any of its children has it.
    """
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as told:
        told.write(message)
        told.seek(0)
        process = subprocess.Popen(
            one.command or [], stdin=told, stdout=said, stderr=said, cwd=folder, start_new_session=True
        )
        try:
            code = process.wait(one.timeout)
        except BaseException:  # also where the job is stopped meanwhile
            with suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        if code:
            said.seek(max(0, said.seek(0, os.SEEK_END) - SAID))
            raise subprocess.CalledProcessError(code, one.command or [], said.read())


def _hidden(text: str, job: Job, one: Notify) -> str:
    """Return text without values of the environment and without arguments, which may be passwords."""
    for argument in (one.command or [])[1:]:
        if len(argument) > SHORT:
            text = text.replace(argument, "...")
    return hide_used(text, job.used)


def _reason(one: Notify, error: Exception) -> str:
    """Return why somebody could not be told, without the address, which may be secret."""
    if isinstance(error, subprocess.CalledProcessError):
        said = (error.output or b"").decode(errors="replace").strip()
        how = (
            f"ended with exit code {error.returncode}"
            if error.returncode > 0
            else f"was killed by signal {-error.returncode}"
        )
        return f"it {how}: {said}"
    if isinstance(error, subprocess.TimeoutExpired):
        return f"it took longer than {one.timeout:g} s"
    if isinstance(error, urllib.error.HTTPError):
        return f"it answered {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return str(error.reason)
    return type(error).__name__ if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
