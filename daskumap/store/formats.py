"""Formats of a run store: what its description holds, and how those of earlier versions are read.

The format changes where an earlier version would take what it finds for something else. A description that
lacks parameters is of a version that did not have them: they have their defaults, which change nothing.
"""

from __future__ import annotations

import dataclasses
import zlib
from typing import Any

from daskumap.errors import StoreError
from daskumap.params import Params
from daskumap.planning.sizes import Sizes
from daskumap.store.documents import as_text

SCHEMA = 6
# 5: `keep="model"` was what is "graph" now.
READABLE = (5, SCHEMA)
# Facts that run stores of earlier formats lack, since the versions that wrote them did not look.
LACKING = {5: frozenset({"facts/undefined", "facts/bits", "facts/repulsion"})}
# What a run store has to say of its run, and as what.
ABOUT = {
    "id": str,
    "params": dict,
    "source": dict,
    "spec": dict | None,
    "model": dict | None,
    "sizes": dict,
    "versions": dict,
    "crc32": int,
}


def as_now(url: str, about: dict[str, Any]) -> dict[str, Any]:
    """Return a description of any format that is read, as this version writes it.

    Raises
    ------
    StoreError
        If it is of another format, damaged, or names what this version does not know.
    """
    if about["schema"] not in READABLE:
        raise _of_another_version(url, about, f"of schema {about['schema']!r}")
    _refuse_damaged(url, about)
    params = dict(about["params"])
    if about["schema"] == 5 and params.get("keep") == "model":
        params["keep"] = "graph"
    unknown = sorted(params.keys() - {field.name for field in dataclasses.fields(Params)})
    unknown += sorted(about["sizes"].keys() - {field.name for field in dataclasses.fields(Sizes)})
    if unknown:
        raise _of_another_version(url, about, f"that names {', '.join(unknown)}")
    return {**about, "params": {**Params().fingerprint(), **params}}


def _of_another_version(url: str, about: dict[str, Any], what: str) -> StoreError:
    from daskumap import __version__

    versions = about.get("versions")
    wrote = versions.get("daskumap", "unknown") if isinstance(versions, dict) else "unknown"
    return StoreError(
        f"{url} is a run store {what}, written by daskumap {wrote}; daskumap {__version__} reads schema "
        f"{READABLE[0]} to {READABLE[-1]}. Install the version that wrote it (pip install "
        f"'daskumap=={wrote}'), or fit again into another store."
    )


def _refuse_damaged(url: str, about: dict[str, Any]) -> None:
    """Refuse a description that is not the one that was written.

    Raises
    ------
    StoreError
        Naming what is wrong with it.
    """
    wrong = [name for name, kind in ABOUT.items() if not isinstance(about.get(name), kind)]
    content = {name: value for name, value in about.items() if name not in ("schema", "crc32")}
    if not wrong and about["crc32"] != zlib.crc32(as_text(content)):
        wrong = ["its checksum"]
    needed = {field.name for field in dataclasses.fields(Sizes) if field.default is dataclasses.MISSING}
    if not wrong and needed - about["sizes"].keys():
        wrong = ["sizes, as of another version of daskumap"]
    if wrong:
        raise StoreError(
            f"The description in {url}/zarr.json is damaged: wrong are {', '.join(wrong)}. Restore it from a "
            "copy, read it with the version that wrote it, or fit again with restart."
        )
