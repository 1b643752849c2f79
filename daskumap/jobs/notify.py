"""Tells people or programs how a job ended; whoever cannot be told does not make the job fail."""

from __future__ import annotations

import json
import logging
import subprocess
import time
import urllib.error
import urllib.request
from urllib.parse import urlsplit

from daskumap import events
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
            _tell(one, json.dumps(summary.as_json()).encode())


def is_wanted(one: Notify, state: str) -> bool:
    """Return whether somebody wants to hear of a job that ended so."""
    if one.on == "always":
        return True
    return state in ("failed", "stopped") or (one.on == "news" and state != "unchanged")


def _tell(one: Notify, message: bytes) -> None:
    called = _name(one)
    for attempt in range(one.retries + 1):
        if attempt:
            time.sleep(PAUSE * 2 ** (attempt - 1))
        try:
            _post(one, message) if one.webhook else _run(one, message)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            failure = hide_secrets(_reason(one, error))
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


def _post(one: Notify, message: bytes) -> None:
    request = urllib.request.Request(
        str(one.webhook), message, {"Content-Type": "application/json", "User-Agent": "daskumap"}
    )
    with urllib.request.urlopen(request, timeout=one.timeout) as answer:
        answer.read()


def _run(one: Notify, message: bytes) -> None:
    subprocess.run(one.command or [], input=message, timeout=one.timeout, check=True, capture_output=True)


def _reason(one: Notify, error: Exception) -> str:
    """Return why somebody could not be told, without the address, which may be secret."""
    if isinstance(error, subprocess.CalledProcessError):
        said = (error.stderr or error.stdout or b"").decode(errors="replace").strip()
        return f"it ended with exit code {error.returncode}: {said[-SAID:]}"
    if isinstance(error, subprocess.TimeoutExpired):
        return f"it took longer than {one.timeout:g} s"
    if isinstance(error, urllib.error.HTTPError):
        return f"it answered {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return str(error.reason)
    return type(error).__name__ if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
