"""What a job did, for whoever asked for it and whoever is told."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
from dataclasses import dataclass, field
from typing import Any

from daskumap.errors import DaskumapError, LockedError, exit_code
from daskumap.secrets import hide_secrets


@dataclass
class Summary:
    """What a job did.

    Attributes
    ----------
    state
        "finished": a map was made, or new rows were placed. "unchanged": nothing was to be done. "failed" and
        "stopped": as they say; the next call goes on. "locked": another process runs the job.
    run
        Path or URL of the run store with the map.
    reason
        Why a new map was made, or none.
    new_rows, far
        Of a source that grows: rows since the map was made, and the share of them that is unlike those.
    transforms, results
        Run stores of new rows, and files for other programs: each a path and whether it was "made" or
        "unchanged".
    removed
        Run stores that the retention did not keep.
    verdict
        That of the map, in one sentence.
    error, exit_code
        What ended a job that failed, and the exit code of the command.
    """

    job: str
    state: str = "failed"
    run: str | None = None
    reason: str = ""
    rows: int | None = None
    new_rows: int | None = None
    far: float | None = None
    transforms: list[dict[str, Any]] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    verdict: str | None = None
    error: str | None = None
    exit_code: int = 0
    started: str = ""
    seconds: float = 0.0
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)

    @property
    def changed(self) -> bool:
        """Whether anything was made."""
        return any(one["state"] == "made" for one in (*self.transforms, *self.results)) or (
            self.state == "finished"
        )

    def end(self, error: BaseException) -> None:
        """Note what ended the job before its end."""
        self.error = str(error) if isinstance(error, DaskumapError) else f"{type(error).__name__}: {error}"
        self.error = hide_secrets(self.error)
        if isinstance(error, KeyboardInterrupt):
            self.state, self.error = "stopped", "It was stopped by a signal."
            self.exit_code = 128 + int(error.args[0] if error.args else signal.SIGINT)
        else:
            self.state = "locked" if isinstance(error, LockedError) else "failed"
            self.exit_code = exit_code(error)

    def as_json(self) -> dict[str, Any]:
        """Return all of it as JSON types."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        lines = [f"job                  {self.job}: {self.state}"]
        lines += [f"{'why':<21}{self.reason}"] if self.reason else []
        lines += [f"{'run':<21}{self.run}"] if self.run else []
        lines += [f"{'new rows':<21}{self.new_rows:,}, {self.far:.1%} far"] if self.new_rows else []
        lines += [f"{'transformed':<21}{one['path']}: {one['state']}" for one in self.transforms]
        lines += [f"{'written':<21}{one['path']}: {one['state']}" for one in self.results]
        lines += [f"{'removed':<21}{path}" for path in self.removed]
        lines += [f"{'verdict':<21}{self.verdict}"] if self.verdict else []
        lines += [f"{'error':<21}{self.error}"] if self.error else []
        return "\n".join(lines)
