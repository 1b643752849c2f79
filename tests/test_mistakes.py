"""Parameters that users pass by mistake: each is refused in our words, at once."""

import functools
import math

import numpy as np
import pytest

import daskumap
from daskumap.errors import ParameterError

QUICK = {"client": "sequential", "progress": False, "n_neighbors": 3}


class Callable:
    def __call__(self, x, y):
        return 1.0


@pytest.mark.parametrize(
    "metric",
    [functools.partial(math.dist), Callable(), Callable, math.dist, len, np.hypot, Callable().__call__],
)
def test_metrics_that_are_no_functions(small, metric):
    with pytest.raises(
        ParameterError, match=r"^metric is a .*; it must be a name, or a function .*metric_kwds="
    ):
        daskumap.fit(small, metric=metric, **QUICK)


def test_functions_that_numba_cannot_compile(small):
    with pytest.raises(ParameterError, match=r"(?s)cannot be compiled by numba.* It says: .*\.$"):
        daskumap.fit(small, metric=lambda x, y: "a", **QUICK)


@pytest.mark.parametrize(
    "name", ["optimizer", "keep", "init", "metric", "n_neighbors", "random_state", "report"]
)
@pytest.mark.parametrize("value", [np.array(["adam", "sgd"]), np.ones(3), {"a": 1}, [1]])
def test_arrays_in_the_place_of_words(small, name, value):
    with pytest.raises(ParameterError, match=rf"^(the )?{name} (is|has)"):
        daskumap.fit(small, **{**QUICK, name: value})


@pytest.mark.parametrize(
    "memory", ["1e400", "nan", "inf", "1e300GB", 10**400, math.nan, math.inf, True, b"4GB", -1]
)
def test_memory_that_is_none(small, memory):
    with pytest.raises(ParameterError, match=r"^memory is "):
        daskumap.fit(small, memory=memory, **QUICK)


@pytest.mark.parametrize("value", [True, 0, -1, 2**70, "2", 1.5, np.ones(3)])
@pytest.mark.parametrize("name", ["threads", "workers", "partitions"])
def test_counts_that_are_none(small, name, value):
    with pytest.raises(ParameterError, match=rf"^{name} is .*; it must be an integer from 1 to"):
        daskumap.plan(small, **{name: value})


@pytest.mark.parametrize("value", ["no", 0, None, np.ones(3)])
def test_switches_that_delete(small, tmp_path, value):
    """ "no" was taken for yes, and the run that was there deleted."""
    with pytest.raises(ParameterError, match=r"^restart is .*; it must be True or False"):
        daskumap.fit(small, tmp_path / "run.zarr", restart=value, **QUICK)
    with pytest.raises(ParameterError, match=r"^repair is .*; it must be True or False"):
        daskumap.verify(tmp_path / "run.zarr", repair=value)


@pytest.mark.parametrize(
    ("metric", "keywords"),
    [
        ("minkowski", {"p": "x"}),
        ("minkowski", {"p": [1, 2]}),
        ("minkowski", {"p": 10**400}),
        ("seuclidean", {"V": object()}),
        ("seuclidean", {"V": "x"}),
        ("mahalanobis", {"VI": {"a": 1}}),
        ("euclidean", {1: 2}),
    ],
)
def test_keywords_of_metrics(small, metric, keywords):
    with pytest.raises(ParameterError, match=r"^(Metric '|metric_kwds is)"):
        daskumap.fit(small, metric=metric, metric_kwds=keywords, **QUICK)


@pytest.mark.parametrize(
    "change",
    [
        lambda init: np.ma.masked_array(init, init > 0),
        lambda init: init * 1e300,
        lambda init: init * np.nan,
        lambda init: init * 1j,
        lambda init: init[:3],
    ],
)
def test_starts_that_are_none(small, change):
    init = np.random.default_rng(0).normal(size=(len(small), 2))
    with pytest.raises(ParameterError, match=r"^init is an array .*numeric, without a mask, and finite"):
        daskumap.fit(small, init=change(init), **QUICK)
