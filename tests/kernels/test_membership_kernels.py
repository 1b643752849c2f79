"""Six kernels of membership and a user's own: against plain NumPy, known values, and at their edges."""

import math

import numpy as np
import pytest
from sklearn.datasets import load_digits, load_iris

from daskumap.kernels.graph import chosen
from daskumap.kernels.graph.calibrate import calibrate, calibrate_new, memberships, tally
from daskumap.kernels.graph.membership import KERNELS, Kernel, bisected
from daskumap.kernels.graph.union import fuzzy_union
from daskumap.testing import reference_graph as reference

NAMES = ["exponential", "gaussian", "quadratic", "morse", "harmonic", "constant"]
UNBOUNDED = ["morse", "harmonic"]
# Distances 1 to 14 of one row, whose memberships are to sum to log2(15) = 3.906891.
ROW = np.arange(1, 15, dtype=np.float32)[None]


def weights_of(kernel, x, y):
    return memberships(np.float32([[x]]), np.zeros(1, np.float32), np.float32([y]), KERNELS[kernel])[0, 0]


def made(distances, k, membership, calibration="exponential", mean=1.0):
    """Return rho, sigma and memberships of rows."""
    weights, bandwidths = chosen.resolve(membership, calibration)
    rho, sigma = calibrate(distances, k, 1.0, mean, bandwidths)
    return rho, sigma, memberships(distances, rho, sigma, weights)


def nearest(X, k):
    """Return the k nearest other rows and their distances; ties go to the lower id."""
    squared = ((X[:, None, :] - X[None]) ** 2).sum(axis=2) if len(X) < 500 else _products(X)
    np.fill_diagonal(squared, np.inf)
    ids = np.argsort(squared, axis=1, kind="stable")[:, :k]
    return ids, np.sqrt(np.take_along_axis(squared, ids, axis=1)).astype(np.float32)


def _products(X):
    norms = (X * X).sum(axis=1)
    return norms[:, None] + norms - 2.0 * X @ X.T


def unions(ids, p):
    """Return p + q - pq of all directed edges, dense, and whether there is an edge."""
    dense = np.zeros((len(ids), len(ids)))
    np.put_along_axis(dense, ids, p.astype(np.float64), axis=1)
    return reference.fuzzy_union(dense, 1.0), (dense > 0) | (dense.T > 0)


def joined(ids, p, cap):
    """Return indptr, tails, weights and the dropped edges of a graph in one block."""
    rows, k = ids.shape
    heads, there = np.repeat(np.arange(rows), k), p.ravel() > 0
    return fuzzy_union(ids, p, 0, ids.ravel()[there], heads[there], p.ravel()[there], 1.0, cap)


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (0.5, 0.8, [0.535261, 0.822578, 0.719101, 0.676146, 1.1, 1.0]),
        (2.0, 0.5, [0.018316, 0.000335, 0.058824, 0.126177, 2.0, 1.0]),
        (0.0, 0.8, [1.0] * 6),
        (0.5, 0.0, [1.0] * 6),
        (np.inf, 0.8, [0.0] * 6),
    ],
)
def test_memberships_by_gap_and_bandwidth(x, y, expected):
    np.testing.assert_allclose([weights_of(name, x, y) for name in NAMES], expected, atol=1e-6)


def test_the_bandwidths_of_one_row():
    found = {}
    for name in set(NAMES) - {"harmonic"}:
        rho, sigma, p = made(ROW, 15, name, "kernel")
        assert rho[0] == 1.0
        found[name] = sigma[0], p.sum()
    for name, y in (("exponential", 3.45163), ("gaussian", 2.71831), ("quadratic", 2.44843)):
        assert found[name][0] == pytest.approx(y, abs=1e-4)
        assert found[name][1] == pytest.approx(3.906891, abs=2e-5)
    assert found["morse"] == pytest.approx((2.885443, 3.906891), abs=1e-5)
    assert found["constant"] == (1.0, 14.0)


@pytest.mark.parametrize("name", ["gaussian", "quadratic", "morse"])
def test_each_row_sums_to_its_target(name):
    """With fewer neighbours than wanted too; not where ties at the nearest alone are more than that."""
    rng = np.random.default_rng(0)
    distances = np.sort(rng.gamma(3.0, 1.0, (300, 14)), axis=1).astype(np.float32)
    distances[::3, 9:] = np.inf
    _, _, p = made(distances, 15, name, "kernel")
    wanted = np.log2(np.isfinite(distances).sum(axis=1) + 1)
    np.testing.assert_allclose(p.sum(axis=1), wanted, atol=3e-5)
    bits, on_target, vanished, gaps = tally(distances, distances[:, 0].copy(), p, math.log2(15))
    assert bits == pytest.approx(wanted.sum(), rel=1e-5)
    assert (on_target, vanished) == (200, 0)
    np.testing.assert_allclose(gaps, distances[np.arange(300), [9 - 1, 13, 13] * 100] - distances[:, 0])


@pytest.mark.parametrize("name", NAMES)
def test_ties_at_the_nearest_and_rows_alone(name):
    """Bandwidths do not fall to 0, with which far neighbours would weigh 1; nothing is joined at infinity."""
    ties = np.float32([[1.0] * 6 + [2.0, 3.0], [np.inf] * 8, [0.0] * 8])
    rho, sigma, p = made(ties, 9, name, "exponential" if name == "harmonic" else "kernel")
    assert (p[0, :6] == 1.0).all()
    assert sigma[0] > 0.0
    if name in ("exponential", "gaussian", "quadratic"):
        assert sigma[0] == pytest.approx(1e-3 * 11.0 / 9.0)
    if name == "morse":
        assert sigma[0] == np.float32(1e-3)
    assert not p[1].any()
    assert (p[2] == 1.0).all()
    assert np.isfinite(p).all()


def test_morse_where_all_others_are_too_far():
    """Only the nearest are joined, and no bandwidth leaves float32 on the way there."""
    for far in (60.0, 85.0, 87.0, 90.0, 100.0, 200.0, 1e6):
        distances = np.float32([[1.0, 1.0 + far, 2.0 + far]])
        rho, sigma, p = made(distances, 4, "morse", "kernel")
        assert np.isfinite(sigma).all()
        assert np.isfinite(p).all()
        if far < 86:
            assert p.sum() == pytest.approx(2.0)
        else:
            assert sigma[0] == 1.0
            np.testing.assert_allclose(p, [[1.0, 0.0, 0.0]], atol=1e-36)
            assert tally(distances, rho, p, 2.0)[2] == 1


@pytest.mark.parametrize("calibration", ["exponential", "kernel"])
def test_another_unit_of_the_data(calibration):
    """It changes no membership, but of the kernels that compare gaps with 1."""
    distances = np.sort(np.random.default_rng(1).gamma(3.0, 1.0, (200, 14)), axis=1).astype(np.float32)
    for name in NAMES:
        if (name, calibration) == ("harmonic", "kernel"):
            continue
        one, other = (made(distances * s, 15, name, calibration)[2] for s in (np.float32(1), np.float32(255)))
        assert np.allclose(one, other, atol=1e-4) == (name not in UNBOUNDED)


def test_unions_of_memberships_above_1():
    ids = np.array([[1], [0], [3], [0]])
    p = np.float32([[2.0], [2.0], [1.3], [0.0]])
    indptr, _, weights, dropped = joined(ids, p, np.inf)
    assert dropped == 2
    assert indptr.tolist() == [0, 0, 0, 1, 2]
    np.testing.assert_array_equal(weights, np.float32([1.3, 1.3]))
    assert joined(ids, p, 1.0)[2].tolist() == [1.0, 1.0]


def test_digits():
    """Sums of all unions before any is dropped, and how many are: the table of the specification."""
    ids, distances = nearest(load_digits().data, 14)
    totals = [11293.41, 13294.30, 14221.56, 8818.31, -1.08860e8, 34236]
    for name, total, lost in zip(NAMES, totals, [0, 0, 0, 42, 12_820, 0], strict=True):
        _, _, p = made(distances, 15, name)
        weights, there = unions(ids, p)
        assert there.sum() == 34_236
        assert weights.sum() == pytest.approx(total, rel=1e-5)
        _, tails, kept, dropped = joined(ids, p, KERNELS[name].cap)
        assert (len(tails), dropped) == (34_236 - lost, lost)
        assert kept.sum(dtype=np.float64) == pytest.approx(weights[weights > 0].sum(), rel=1e-6)
        assert kept.min() > 0
        assert (kept.max() <= 1) == KERNELS[name].bounded


@pytest.mark.parametrize(
    ("k", "edges", "totals"),
    [
        (15, 2_694, [916.86, 1072.93, 1153.37, 694.31, 2726.09, 2694]),
        (30, 5_350, [1176.20, 1257.55, 1604.68, 1256.03, 5518.40, 5350]),
    ],
)
def test_iris(k, edges, totals):
    """Within what ties allow, which float32 breaks; a fit has these numbers to the digit."""
    ids, distances = nearest(load_iris().data.astype(np.float32), k - 1)
    for name, total in zip(NAMES, totals, strict=True):
        weights, there = unions(ids, made(distances, k, name)[2])
        assert there.sum() == pytest.approx(edges, rel=5e-3)
        assert weights.sum() == pytest.approx(total, rel=5e-3)


@pytest.mark.parametrize("name", ["gaussian", "quadratic", "morse", "constant"])
def test_new_rows(name):
    """The nearest neighbour stands for the row itself, left out of the sum."""
    distances = np.sort(np.random.default_rng(2).gamma(3.0, 1.0, (50, 15)), axis=1).astype(np.float32)
    kernel = KERNELS[name]
    rho, sigma = calibrate_new(distances, 15, 1.0, 1.0, kernel)
    assert not rho.any()
    p = memberships(distances, rho, sigma, kernel)
    if name == "constant":
        assert (p == 1.0).all()
    else:
        np.testing.assert_allclose(p[:, 1:].sum(axis=1), math.log2(15), atol=3e-5)


def cubic(x, y):
    return math.exp(-((x / y) ** 3))


def by_the_last(gaps, target):
    return gaps[-1] / target


def test_a_kernel_is_one_entry(monkeypatch):
    monkeypatch.setitem(KERNELS, "cubic", Kernel(cubic, bisected))
    _, sigma, p = made(ROW, 15, "cubic", "kernel")
    assert p.sum() == pytest.approx(3.906891, abs=2e-5)
    np.testing.assert_allclose(p[0], np.exp(-(((ROW[0] - 1) / sigma[0]) ** 3)), atol=1e-6)


def test_functions_of_the_users():
    _, sigma, p = made(ROW, 15, (cubic, by_the_last), "kernel")
    assert sigma[0] == np.float32(13.0 / math.log2(15))
    np.testing.assert_allclose(p[0], np.exp(-(((ROW[0] - 1) / sigma[0]) ** 3)), atol=1e-6)
    assert made(ROW, 15, (cubic, by_the_last))[1] == made(ROW, 15, "exponential")[1]
    without, again = (chosen.resolve((cubic, None), "kernel").weights for _ in range(2))
    assert without is again  # Each other one would be compiled anew.
    assert without.bounded
    assert without.solve is bisected
    assert not chosen.resolve((lambda x, y: 2.0 * y / (x + y), None), "kernel").weights.bounded


WRONG = {
    "name": ("cauchy", "kernel", "membership is 'cauchy'; allowed are exponential, gaussian, quadratic"),
    "no solution": ("harmonic", "kernel", "no bandwidth makes them sum to log2"),
    "arguments": ((lambda x: x, None), "kernel", r"weight\(x, y\) of float64 that returns a number. It says"),
    "text": ((lambda x, y: "p", None), "kernel", "cannot be compiled by numba"),
    "negative": ((lambda x, y: 1.0 - x, None), "kernel", "A membership is finite and at least 0 for all"),
    "solver": ((cubic, lambda gaps, target: -1.0), "kernel", "A bandwidth is finite and at least 0"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_no_kernel_is_refused(wrong):
    membership, calibration, says = WRONG[wrong]
    with pytest.raises(ValueError, match=says):
        chosen.resolve(membership, calibration)
