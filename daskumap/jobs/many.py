"""Many jobs, each in a process of its own, so that one that fails, or is killed, ends itself alone."""

from __future__ import annotations

import glob
import json
import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from daskumap import events
from daskumap.errors import ParameterError
from daskumap.jobs.reading import read_job

log = logging.getLogger(__name__)


def find_jobs(names: list[str]) -> list[str]:
    """Return the job files that paths and patterns mean, each once, in order; all are read once.

    Raises
    ------
    ParameterError
        If a pattern finds nothing, or a file is no job file: before the first of them runs.
    """
    found: dict[str, None] = {}
    for name in names:
        is_pattern = glob.has_magic(name) and not os.path.exists(name)
        files = sorted(glob.glob(name, recursive=True)) if is_pattern else [name]
        if not files:
            raise ParameterError(f"There is no job file like {name}. Name files, or quote a pattern.")
        found |= dict.fromkeys(files)
    runs: dict[str, str] = {}
    for file in found:
        run = read_job(file).run
        if run in runs:
            raise ParameterError(f"{runs[run]} and {file} write the same run {run}. Give each its own.")
        runs[run] = file
    return list(found)


@dataclass
class Done:
    """What a batch did: the summary of each job by its file."""

    jobs: dict[str, dict[str, Any]]

    @property
    def exit_code(self) -> int:
        """0 if no job failed, the code of those that did where it is one, else 1."""
        codes = {one["exit_code"] for one in self.jobs.values()} - {0}
        return codes.pop() if len(codes) == 1 else bool(codes)

    def as_json(self) -> dict[str, Any]:
        """Return all of it as JSON types."""
        return {"exit_code": self.exit_code, "states": self.states, "jobs": self.jobs}

    @property
    def states(self) -> dict[str, int]:
        """How many jobs ended in each state."""
        states = [one["state"] for one in self.jobs.values()]
        return {state: states.count(state) for state in sorted(set(states))}

    def __str__(self) -> str:
        width = max(map(len, self.jobs))
        lines = [
            f"{file:<{width}}  {one['state']:<10} {one['seconds']:>8,.1f} s  {one['error'] or one['run']}"
            for file, one in self.jobs.items()
        ]
        total = ", ".join(f"{count} {state}" for state, count in self.states.items())
        return "\n".join([*lines, f"{len(self.jobs)} jobs: {total}"])


@dataclass
class Batch:
    """Runs jobs, `workers` at a time."""

    files: list[str]
    workers: int = 1
    restart: bool = False
    quiet: bool = False
    _stopped: bool = False
    _running: set[subprocess.Popen[str]] = field(default_factory=set)

    def run(self) -> Done:
        """Run all; return what each did. A stop is passed on to those that run."""
        with ThreadPoolExecutor(self.workers, thread_name_prefix="daskumap-job") as pool:
            waiting = [pool.submit(self._run_one, file) for file in self.files]
            try:
                return Done(dict(zip(self.files, [one.result() for one in waiting], strict=True)))
            except KeyboardInterrupt:
                self._stopped = True
                for process in list(self._running):
                    process.terminate()
                raise

    def _run_one(self, file: str) -> dict[str, Any]:
        if self._stopped:
            return {"state": "stopped", "exit_code": 143}
        process = subprocess.Popen(self._command(file), stdout=subprocess.PIPE, text=True)
        self._running.add(process)
        said, _ = process.communicate()
        self._running.discard(process)
        summary = _summary(file, said, process.returncode)
        if summary["state"] == "failed":
            log.warning("The job %s failed with exit code %s: %s", file, process.returncode, summary["error"])
        return summary

    def _command(self, file: str) -> list[str]:
        flags = {
            "--restart": self.restart,
            "--quiet": self.quiet,
            "--log-json": events.style() == "json",
        }
        switches = [flag for flag, wanted in flags.items() if wanted]
        return [sys.executable, "-m", "daskumap", "run", file, "--json", *switches]


def _summary(file: str, said: str, code: int) -> dict[str, Any]:
    """Return what a job's process said in the end, or that it said nothing."""
    try:
        found: dict[str, Any] = json.loads(said)
    except ValueError:
        signal = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        text = f"The process {signal}; its messages say why."
        return {"job": file, "state": "failed", "run": None, "seconds": 0.0, "error": text, "exit_code": code}
    return {**found, "exit_code": code}
