"""Processes of a benchmark that do a task under a limit, and drivers that are killed in the middle of theirs.

A script that is started with a task as JSON does it and says last, in one line of JSON, what it found.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import limits
from compare import ROOT

POLL_SECONDS = 0.05
Started = tuple["subprocess.Popen[str]", Any]


def start(script: str, task: dict[str, Any], folder: Path, limit: int | None = None) -> Started:
    """Start a process for a task, under a limit of its bytes if there is one; return it with the limit."""
    held = None if limit is None else limits.make_limit(task["out"].partition(".")[0], limit)
    command = [*(held.command() if held else []), sys.executable, str(Path(script).resolve()), "--task"]
    paths = filter(None, (os.environ.get("PYTHONPATH"), str(ROOT)))
    process = subprocess.Popen(
        [*command, json.dumps({**task, "folder": str(folder)})],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.PIPE,
        text=True,
    )
    return process, held


def finish(started: Started) -> dict[str, Any]:
    """Wait for a process, and return what it found and what the system counted of it."""
    process, held = started
    said = process.communicate()[0]
    readings = {"kind": held.kind, **held.readings()} if held else {}
    if held:
        held.close()
    if process.returncode:
        raise SystemExit(f"A process ended with {process.returncode}: {readings}.")
    return {**json.loads(said.splitlines()[-1]), "readings": readings}


def kill_at(
    shares: Sequence[float], done: Callable[[], float], begin: Callable[[], Started]
) -> list[float | None]:
    """Start a driver for each share; kill it when that share of the work is done.

    Parameters
    ----------
    done
        Returns the share that is done.
    begin
        Starts a driver, which goes on where the one before it was killed.

    Returns
    -------
    killed_at
        The share that was done when it was dead; None for a driver that was done first.
    """
    found: list[float | None] = []
    for share in shares:
        process, held = begin()
        while process.poll() is None and done() < share:
            time.sleep(POLL_SECONDS)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.communicate()
        if held:
            held.close()
        found.append(done() if process.returncode == -signal.SIGKILL else None)
    return found


def killed_text(shares: Sequence[float | None]) -> str:
    """Return in words how much was done when drivers were killed."""
    return ", ".join("none (it was done first)" if share is None else f"{share:.0%}" for share in shares)


def serve(work: Callable[[dict[str, Any]], dict[str, Any]]) -> bool:
    """Do the task that the command line names, if it names one, and say what was found."""
    if sys.argv[1:2] != ["--task"]:
        return False
    sys.stdout.write(f"{json.dumps(work(json.loads(sys.argv[2])))}\n")
    return True
