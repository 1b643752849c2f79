"""Memberships, simplices, diagnostics and threads that meet, where other features meet them."""

import logging

import numpy as np
import pytest

import daskumap
from daskumap.errors import ParameterError, RunMismatchError
from daskumap.params import fit_curve, make_params


def made(source: str, **names: object) -> object:
    """Return the function `f` of a text."""
    found = {"np": np, "__name__": "theirs", **names}
    exec(source, found)
    return found["f"]


def told(function: object) -> str:
    return make_params({"metric": function}).fingerprint()["metric"]


def within(factor: float) -> object:
    def f(x, y):  # type: ignore[no-untyped-def]
        return factor * abs(x[0] - y[0])

    return f


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (made("def f(x, y): return np.sin(x[0] - y[0])"), made("def f(x, y): return np.cos(x[0] - y[0])")),
        (made("def f(x, y, p=1): return p * x[0]"), made("def f(x, y, p=2): return p * x[0]")),
        (within(1.0), within(2.0)),
        (made("def f(x, y): return C * x[0]", C=1.0), made("def f(x, y): return C * x[0]", C=2.0)),
        (made("def f(x, y): return C[0]", C=np.zeros(2)), made("def f(x, y): return C[0]", C=np.ones(2))),
        (made("def f(x, y): return g(x)", g=within(1.0)), made("def f(x, y): return g(x)", g=within(2.0))),
    ],
    ids=["calls", "defaults", "closures", "numbers", "arrays", "functions"],
)
def test_functions_that_compute_other_things_are_told_apart(one, other) -> None:
    assert told(one) != told(other)


RECURSIVE = """
def f(x, y):
    return f(x[1:], y) + sum([abs(a) for a in x if a in {1, 2, "three", "four"}]) + lowest(x)
"""


def test_a_function_is_told_alike_in_any_process(execute) -> None:
    """Though the repr of code within it holds an address, and a set has another order in each process."""
    here = made(RECURSIVE, lowest=np.min)
    code = f"""
import numpy as np
import daskumap
from daskumap.errors import ParameterError, RunMismatchError
from daskumap.params import fit_curve, make_params
found = {{"np": np, "__name__": "theirs", "lowest": np.min}}
exec({RECURSIVE!r}, found)
print(make_params({{"metric": found["f"]}}).fingerprint()["metric"])
"""
    assert execute(code)[:2] == (0, told(here) + "\n")


def test_a_run_is_not_taken_for_that_of_another_function(fit, small, tmp_path) -> None:
    """The two differ in the name of what they call alone."""
    place, graph = tmp_path / "run.zarr", {"transform_mode": "graph"}
    by = {name: made(f"def f(x, y): return 1.0 - np.{name}(x / (x + y))") for name in ("sin", "tanh")}
    first = fit(small, place, membership=(by["sin"], None), **graph).graph()
    assert (fit(small, place, membership=(by["sin"], None), **graph).graph() != first).nnz == 0
    with pytest.raises(RunMismatchError, match="membership"):
        fit(small, place, membership=(by["tanh"], None), **graph)


@pytest.mark.parametrize("kind", ["copies", "alone"])
def test_no_scale_is_asked_of_what_none_changes(fit, small, caplog, kind) -> None:
    rows, words = (np.ones((60, 3)), {}) if kind == "copies" else (small, {"disconnection_distance": 0.0})
    with caplog.at_level(logging.WARNING):
        fit(rows, membership="morse", transform_mode="graph", **words)
    assert "Scale the data" not in caplog.text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"membership": "cauchy"}, "membership is 'cauchy'; allowed are"),
        ({"membership": "harmonic", "calibration": "kernel"}, "no bandwidth makes them sum"),
        ({"membership": "morse"}, "memberships by 'morse' may be above 1"),
        ({"membership": (made("def f(x, y): return 5.0"), None)}, "memberships by theirs.f may be above 1"),
    ],
)
def test_memberships_that_simplices_cannot_have_are_refused(fit, small, words, says, tmp_path) -> None:
    with pytest.raises(ParameterError, match=says):
        fit(small, tmp_path / "run.zarr", simplices=2, **words)
    assert not (tmp_path / "run.zarr").exists()


@pytest.mark.parametrize(
    ("weight", "solve", "says"),
    [
        ("1 // int(x * 0)", None, r"f raises ZeroDivisionError\(.*for x and y from 1e-06 to 1e\+06"),
        ("(x, y)", None, r"f returns array.*weight\(x, y\) of float64 that returns a number"),
        ("y / (x + y)", "1 // int(x[0])", r"f raises ZeroDivisionError\(.*for gaps 0, 1, ... 13"),
        ("y / (x + y)", "(y, y)", r"f returns array.*solve\(gaps, target\) of float64"),
    ],
)
def test_functions_that_return_no_number_are_refused(fit, small, weight, solve, says, tmp_path) -> None:
    pair = [text and made(f"def f(x, y): return {text}") for text in (weight, solve)]
    with pytest.raises(ParameterError, match=says):
        fit(small, tmp_path / "run.zarr", membership=pair, calibration="kernel")
    assert not (tmp_path / "run.zarr").exists()


def test_no_alpha_leaves_the_strength_as_it_was(fit, small) -> None:
    run = fit(small, repulsion_strength=2.0, n_epochs=1)
    again = daskumap.fit(run, alpha=None, client="sequential", progress=False)
    assert (again.params["alpha"], again.params["repulsion_strength"]) == (None, 2.0)


@pytest.mark.parametrize(("spread", "min_dist"), [(0.1, 0.0), (10.0, 9.0), (1e5, 1e5), (1e-3, 0.0)])
def test_a_curve_is_found_whatever_the_unit_of_the_map(recwarn, spread, min_dist) -> None:
    a, b = fit_curve(spread, min_dist)
    one, power = fit_curve(1.0, min_dist / spread)
    assert b == pytest.approx(power, rel=1e-6)
    assert a * spread ** (2 * b) == pytest.approx(one, rel=1e-6)
    assert not recwarn.list


@pytest.mark.parametrize("words", [{"spread": 1e5, "min_dist": 1e5}, {"a": 1e-12, "b": 1e-3}])
def test_a_report_of_a_far_curve(fit, small, words) -> None:
    run = fit(small, n_epochs=2, report=True, **words)
    assert np.isfinite(run.embedding[:]).all()
    assert run.report["measures"]["attraction"] >= 0
