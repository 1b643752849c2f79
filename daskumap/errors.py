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
