"""What a job writes lies apart: each in a place of its own, and none where it reads from."""

from __future__ import annotations

from daskumap.errors import ParameterError
from daskumap.exports.targets import choose_target
from daskumap.jobs.schema import CLUSTER_FILES, Job, Result


def refuse_meeting(job: Job, called: str) -> None:
    """Refuse a job that would write over what it reads, or over another of its results.

    Raises
    ------
    ParameterError
        Naming both; or the first result of which is not known what it is to be.
    """
    stores = [job.run, *(one.out for one in job.transform)]
    files = [one.path for one in job.all_results if not _is_within_input(one)]
    written = stores + files
    for number, one in enumerate(written):
        for other in written[number + 1 :]:
            if _meet(one, other):
                what = (
                    f"{one} is written twice" if one == other else f"Of {one} and {other} one holds the other"
                )
                raise ParameterError(f"{called}: {what}. Give each result a place of its own.")
        for other in _read(job):
            if one == other or (one in files and _meet(one, other)):
                raise ParameterError(
                    f"{called} reads {other} and would write {one} there. Name another place for the result."
                )


def _is_within_input(result: Result) -> bool:
    """Return whether a result goes into an AnnData that is there, of which it may be the map."""
    options = result.options
    return choose_target(result.path, options.pop("kind", None), options).kind == "anndata"


def _read(job: Job) -> list[str]:
    is_file = isinstance(job.cluster, str) and job.cluster.endswith(CLUSTER_FILES)
    beside = [job.labels, str(job.cluster) if is_file else None]
    return [job.source.path, *(one.source.path for one in job.transform), *filter(None, beside)]


def _meet(one: str, other: str) -> bool:
    """Return whether two places are the same, or one lies in the other."""
    one, other = f"{one.rstrip('/')}/", f"{other.rstrip('/')}/"
    return one.startswith(other) or other.startswith(one)
