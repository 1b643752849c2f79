"""Job files as assets of Dagster: a map, its report and new rows, by schedule and where the input changed.

Nothing else of daskumap imports this package: it needs the extra `dagster`.
"""

from daskumap.errors import DependencyError

try:
    import dagster  # noqa: F401, asked for before anything of it is used
except ImportError as error:
    raise DependencyError(
        "Assets need Dagster, which is not installed. Install it: pip install 'daskumap[dagster]'"
    ) from error

from daskumap.dagster.definitions import definitions

__all__ = ["definitions"]
