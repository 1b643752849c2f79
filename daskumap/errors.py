"""The errors that daskumap raises.

Each is a `DaskumapError` and also the builtin that a caller would catch. A message says what was seen, what
is allowed and what to do.
"""

import errno

from daskumap.secrets import hide_secrets

# What a full disk says, or the end of one's share of it.
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class DaskumapError(Exception):
    """Base of every error that daskumap raises on purpose; its text has no passwords or tokens of URLs."""

    def __str__(self) -> str:
        return hide_secrets(super().__str__())

    def __repr__(self) -> str:
        return hide_secrets(super().__repr__())


class ParameterError(DaskumapError, ValueError):
    """A parameter is outside its allowed range."""


class SourceError(DaskumapError, ValueError):
    """The input cannot be used: wrong shape, type, or values."""


class SourceNotFoundError(SourceError, FileNotFoundError):
    """There is nothing to read where the input should be."""


class PlanError(DaskumapError, MemoryError):
    """The run cannot fit in the memory or the disk that it is allowed."""


class StoreError(DaskumapError, OSError):
    """The run store cannot be read or written, or holds something else."""


class LockedError(StoreError):
    """Another process works on the run store, or runs the job."""


class RunMismatchError(StoreError):
    """The run store holds a run with another input or other parameters."""


class TaskError(DaskumapError, RuntimeError):
    """A task failed more often than it may."""


class ClusterError(DaskumapError, ConnectionError):
    """The connection to a Dask cluster was lost, or somebody else took back its tasks."""


class ProcessError(DaskumapError, RuntimeError):
    """A fit cannot run in this process, and can in another one."""


class DependencyError(DaskumapError, ImportError):
    """An optional package is needed and missing."""


# What a scheduler of batch jobs sees. 0 is success, 1 an error without a code of its own, 130 and 143 are
# SIGINT and SIGTERM; 10 and 11 are those of `daskumap status`.
EXIT_CODES: tuple[tuple[type[DaskumapError], int], ...] = (
    (ParameterError, 2),
    (SourceError, 3),
    (PlanError, 4),
    (RunMismatchError, 6),
    (LockedError, 9),
    (StoreError, 5),
    (TaskError, 7),
    (ClusterError, 8),
)


def exit_code(error: BaseException) -> int:
    """Return the exit code of a command that an error ends."""
    return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), 1)
