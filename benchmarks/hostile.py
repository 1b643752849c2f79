"""Fit random arrays under random parameters, both hostile: each ends in a map or in an error of daskumap's.

    python benchmarks/hostile.py --minutes 10

Prints how many ended how, and each that ended otherwise; the exit code is 1 then. A case is named by its
number alone: `--first N --cases 1` runs it again.
"""

from __future__ import annotations

import argparse
import collections
import functools
import math
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import zarr

import daskumap
from daskumap.errors import DaskumapError

Array = np.ndarray[Any, Any]

TYPES = (
    "f2",
    "f4",
    "f8",
    ">f4",
    ">f8",
    "i1",
    "u1",
    "i2",
    ">i2",
    "u2",
    "i4",
    "u4",
    "i8",
    "u8",
    "?",
    "c8",
    "M8[s]",
    "O",
)
METRICS = (
    *("euclidean", "sqeuclidean", "cosine", "correlation", "hellinger", "manhattan", "chebyshev", "canberra"),
    *("braycurtis", "haversine", "hamming", "inner_product", "bit_hamming", "seuclidean", "mahalanobis"),
)
ODD = (
    *(
        None,
        True,
        False,
        -1,
        0,
        1,
        2,
        3,
        2**31,
        2**63,
        2**70,
        10**400,
        0.5,
        -0.0,
        1e-320,
        1e308,
        math.inf,
        math.nan,
    ),
    *(
        "",
        "x",
        "nan",
        "1e400",
        "4GB",
        b"1",
        [],
        [1],
        (),
        {},
        {"a": 1},
        {1: 2},
        object(),
        len,
        functools.partial(max),
    ),
    *(
        np.ones(3),
        np.array("adam"),
        np.float32(2),
        np.int64(7),
        np.datetime64("now"),
        np.ma.masked_array([1], [1]),
    ),
)
NAMES = (
    *("n_neighbors", "n_components", "metric", "metric_kwds", "learning_rate", "init", "min_dist", "spread"),
    *("a", "b", "set_op_mix_ratio", "local_connectivity", "repulsion_strength", "negative_sample_rate"),
    *(
        "disconnection_distance",
        "random_state",
        "optimizer",
        "reconcile_every",
        "target_recall",
        "max_overlap",
    ),
    *("max_cell_rows", "checkpoint_every", "unique", "report", "keep", "missing", "memory", "threads"),
    *("partitions", "progress", "restart"),
)


def zero(x, y):  # type: ignore[no-untyped-def]
    """Return no distance at all."""
    return 0.0


def broken(x, y):  # type: ignore[no-untyped-def]
    """Return NaN for some pairs."""
    return np.nan if x[0] > y[0] else 1.0


def unbounded(x, y):  # type: ignore[no-untyped-def]
    """Return infinity for most pairs."""
    return 0.0 if x[0] == y[0] else np.inf


def make_values(rng: np.random.Generator) -> Array:
    """Return rows of any size, scale, origin, type and order, with some values that no map can take."""
    rows, columns = int(rng.choice([1, 2, 3, 17, 60, 200, 700])), int(rng.integers(1, 9))
    data = rng.normal(size=(rows, columns))
    match rng.integers(8):
        case 0:
            data[:] = rng.normal()
        case 1:
            data = data[rng.integers(0, max(1, rows // 4), rows)]
        case 2:
            data[rng.random(data.shape) < 0.9] = 0
        case 3:
            data = np.sort(data, axis=0)
        case 4:
            data[:, 0] *= 10.0 ** rng.integers(-30, 30)
        case 5:
            data[rng.integers(rows)] *= 10.0 ** rng.integers(-30, 30)
    if rng.random() < 0.4:
        data *= 10.0 ** float(rng.choice([-310, -45, -40, -23, -10, 3, 10, 19, 25, 38, 150, 300]))
    if rng.random() < 0.3:
        data += 10.0 ** rng.integers(0, 20)
    kind = str(rng.choice(TYPES))
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = data.astype("i8").astype(kind) if kind.startswith("M") else data.astype(kind)
    if data.dtype.kind == "f" and rng.random() < 0.15:
        data[rng.integers(rows), rng.integers(columns)] = rng.choice([np.nan, np.inf, -np.inf, 9.96921e36])
    return data


def store(rng: np.random.Generator, data: Array, folder: Path) -> Any:
    """Return the rows as users have them: in memory, in Zarr of any layout, as dask arrays or lists."""
    match rng.integers(10):
        case 0:
            return data.tolist()
        case 1:
            return np.asfortranarray(data)[::-1]
        case 2:
            return np.ma.masked_array(data, rng.random(data.shape) < 0.1)
        case 3:
            import dask.array

            return dask.array.from_array(data, chunks=tuple(int(rng.integers(1, n + 1)) for n in data.shape))
    if data.dtype.kind not in "fiub":
        return data
    names = (
        "scale_factor",
        "add_offset",
        "_FillValue",
        "missing_value",
        "valid_min",
        "valid_range",
        "_Unsigned",
    )
    odd = (0.01, 1, 0, -1, 1e300, [0, 5], "x", None, "true", data.ravel()[0].item())
    packed = {str(name): odd[rng.integers(len(odd))] for name in rng.choice(names, rng.integers(0, 3), False)}
    options: dict[str, Any] = {"zarr_format": int(rng.choice([2, 3]))}
    if options["zarr_format"] == 3 and rng.random() < 0.3:
        options["shards"] = data.shape
        options["chunks"] = tuple(n if n % 2 else n // 2 for n in data.shape)
    else:
        options["chunks"] = tuple(int(rng.integers(1, n + 1)) for n in data.shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.create_array(folder / "x.zarr", data=data, attributes=packed, **options)
    return folder / "x.zarr"


def make_options(rng: np.random.Generator, columns: int) -> dict[str, Any]:
    """Return parameters, most of them right and some of them odd."""
    options: dict[str, Any] = {"n_neighbors": int(rng.integers(2, 12)), "n_epochs": 3, "random_state": 1}
    if rng.random() < 0.6:
        options["metric"] = str(rng.choice(METRICS))
        if options["metric"] in ("seuclidean", "mahalanobis"):
            scale = 10.0 ** rng.integers(-30, 30)
            options["metric_kwds"] = (
                {"V": np.full(columns, scale)}
                if options["metric"] == "seuclidean"
                else {"VI": np.eye(columns) * scale}
            )
    elif rng.random() < 0.2:
        options["metric"] = (zero, broken, unbounded)[rng.integers(3)]
    if rng.random() < 0.3:
        for name in rng.choice(NAMES, rng.integers(1, 3), replace=False):
            options[str(name)] = ODD[rng.integers(len(ODD))]
    return {"client": "sequential", "progress": False, **options}


def run_case(number: int, folder: Path) -> str:
    """Fit one case; return how it ended."""
    rng = np.random.default_rng(number)
    values = make_values(rng)
    data, options = store(rng, values, folder), make_options(rng, values.shape[1])
    place = folder / "run.zarr" if rng.random() < 0.3 else None
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run = daskumap.fit(data, place, **options)
            positions = run.embedding[:]
    except DaskumapError as error:
        if not str(error).endswith("."):
            raise
        if type(error).__name__ == "TaskError":
            raise  # What fails in the middle of a run should have been refused before.
        return type(error).__name__
    if np.isinf(positions).any():
        raise AssertionError("The map holds infinity.")
    return "a map without rows" if np.isnan(positions).all() else "a map"


def main(arguments: list[str] | None = None) -> int:
    """Run cases until the time is over; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--cases", type=int, default=10**9, help="at most so many")
    options = parser.parse_args(arguments)
    ends: collections.Counter[str] = collections.Counter()
    stop, bad = time.monotonic() + 60 * options.minutes, 0
    for number in range(options.first, options.first + options.cases):
        if time.monotonic() > stop:
            break
        folder = Path(tempfile.mkdtemp(prefix="hostile-"))
        try:
            ends[run_case(number, folder)] += 1
        except Exception:
            bad += 1
            print(f"case {number}:\n{traceback.format_exc()}", flush=True)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    print(f"{ends.total() + bad} cases: {dict(ends.most_common())}, {bad} otherwise")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
