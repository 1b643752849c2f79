"""What opens an input again in another process, what of that a run store may hold, and what it may name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from daskumap.errors import StoreError
from daskumap.secrets import hide_secrets

# Options of a file system that a run store may hold: never a secret, which each process has from its caller
# or its environment.
SHARED_OPTIONS = ("anon", "endpoint_url", "profile", "project", "requester_pays", "account_name")
# Options that say which host is asked, and protocols whose host only they, or what follows an @, can say.
HOSTS = {"endpoint_url", "account_name"}
BUCKETS = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss")


def public_spec(spec: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return a spec as it may be stored: without passwords and tokens, which a resume asks for again."""
    if spec is None:
        return None
    options = {
        name: _without_secrets(value)
        for name, value in spec.get("storage_options", {}).items()
        if name in SHARED_OPTIONS
    }
    shared = {"storage_options": options} if "storage_options" in spec else {}
    return {**spec, "path": hide_secrets(spec["path"]), **shared}


def is_near(path: str, run: str) -> bool:
    """Return whether what a run store names is of this machine, or of the run's own buckets."""
    if "://" not in path:
        return Path(path).is_absolute()
    own = path.startswith("file://") or (
        _bucket_host(path) is not None and _bucket_host(path) == _bucket_host(run)
    )
    # References lead anywhere, whoever wrote them.
    return own and "::" not in path and re.search(r"\.(json|parq)(/|$)", path) is None


# How a caller vouches for the input of a run.
NAME_IT = "daskumap.resume(run, data=...), or --source; daskumap.transform(run, ..., fitted=...), or --fitted"


def refuse_foreign(spec: dict[str, Any], run: str, kinds: Mapping[str, tuple[str, ...]]) -> None:
    """Refuse a spec that a run store names unless it is of this machine, or of the run's own buckets.

    A run store may come from anybody: what it names is contacted with the caller's credentials.

    Parameters
    ----------
    run
        Where the run store is.
    kinds
        Kinds that may be named, and the options of each.

    Raises
    ------
    StoreError
        Saying what it names, and how the caller allows that.
    """
    path, options = str(spec.get("path")), spec.get("storage_options", {})
    known = spec.keys() <= {"kind", "path", "options", "storage_options"} and isinstance(options, dict)
    chosen, kind = spec.get("options", {}), spec.get("kind")
    known = known and isinstance(chosen, dict) and chosen.keys() <= set(kinds.get(str(kind), ()))
    if not known or str(kind) not in kinds or options.keys() - set(SHARED_OPTIONS):
        raise StoreError(
            f"{run} does not say where its input is in the way that daskumap writes it. Name the input: "
            f"{NAME_IT}."
        )
    if not is_near(path, run) or (options.keys() & HOSTS and _bucket_host(path) is not None):
        raise StoreError(
            f"{run} names {path} as its input: another protocol or host than its own, which is not contacted "
            "on the word of a run store. Name the input, with its password or token if it has one: "
            f"{NAME_IT}."
        )


def _bucket_host(url: str) -> tuple[str, str] | None:
    """Return protocol and host of a URL of an object store; None for all else."""
    parts = urlsplit(url)
    return (parts.scheme, parts.netloc.partition("@")[2]) if parts.scheme in BUCKETS else None


def _without_secrets(value: Any) -> Any:
    return hide_secrets(value) if isinstance(value, str) else value
