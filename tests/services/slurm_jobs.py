"""Jobs of the Slurm that .ci/services.d/slurm started."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

# A job runs for a few of them; a busy machine takes its time.
SECONDS = 420
OVER = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"}


def command(*words, **options):
    """Run a command of Slurm, with the environment under test on the path; return what it printed."""
    options = {"check": True, "timeout": SECONDS, "capture_output": True, "text": True, **options}
    return subprocess.run([str(word) for word in words], env=environment(), **options).stdout.strip()


def environment():
    """Return the environment of a user who activated the one under test."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


class Job:
    """A job that was submitted from a folder; its log lies there."""

    def __init__(self, folder, *words):
        self.folder = folder
        self.number = command("sbatch", "--parsable", "--output=job-%j.log", *words, cwd=folder)

    @property
    def log(self):
        """What the job wrote so far."""
        path = self.folder / f"job-{self.number}.log"
        return path.read_text() if path.exists() else ""

    def about(self, name):
        """Return what Slurm says of the job, such as its JobState."""
        shown = command("scontrol", "show", "job", self.number)
        return re.search(rf"\b{name}=(\S*)", shown)[1]

    def wait_for(self, text, seconds=SECONDS):
        """Wait until the log has a text."""
        self._wait(lambda: text in self.log, f"{text!r} in the log", seconds)

    def wait_for_state(self, *states, seconds=SECONDS):
        """Wait until the job is in one of these states; return it."""
        self._wait(lambda: self.about("JobState") in states, f"one of {states}", seconds)
        return self.about("JobState")

    def end(self, seconds=SECONDS):
        """Wait for the end of the job; return its state and its exit code as Slurm writes it."""
        self.wait_for_state(*OVER, seconds=seconds)
        return self.about("JobState"), self.about("ExitCode")

    def processes(self, words):
        """Return the processes of the job whose command has these words."""
        return [
            number for number in map(_number, Path("/proc").iterdir()) if number and self._has(number, words)
        ]

    def _has(self, number, words):
        try:
            variables = Path(f"/proc/{number}/environ").read_bytes().split(b"\0")
            called = Path(f"/proc/{number}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            return False
        return f"SLURM_JOB_ID={self.number}".encode() in variables and words in called

    def _wait(self, done, what, seconds):
        until = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < until, f"no {what} in {seconds} s; {self.about('JobState')}\n{self.log}"
            assert what.startswith("one of") or self.about("JobState") not in OVER or done(), self.log
            time.sleep(0.2)


def _number(path):
    return int(path.name) if path.name.isdigit() else 0
