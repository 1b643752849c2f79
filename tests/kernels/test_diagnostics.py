"""What the pairs of a map say, against all pairs, and the error that the sampled part is said to have."""

import numpy as np
import pytest

from daskumap.kernels.layout.diagnostics import Sums, add_sums, diagnostics, loss_of, pair_sums
from daskumap.testing import reference_layout as reference

A, B, KEY, DRAWS = 1.577, 0.895, 0xFEDCBA9876543210, 5.0
SAMPLED = ("non_edge_repulsion", "effective_loss")


def graph(n, density, seed=0):
    """Return a dense symmetric graph, and its indptr, tails and weights."""
    rng = np.random.default_rng(seed)
    dense = np.where(rng.random((n, n)) < density, rng.random((n, n)), 0).astype(np.float32)
    dense = np.triu(dense, 1) + np.triu(dense, 1).T
    return dense, csr(dense)


def csr(dense):
    heads, tails = np.nonzero(dense)
    indptr = np.append(0, np.cumsum(np.bincount(heads, minlength=len(dense))))
    return indptr, tails, dense[heads, tails]


def start(n, d, scale=10):
    return (np.random.default_rng(1).random((n, d)) * scale).astype(np.float32)


def ranges(positions, edges, cuts, **options):
    """Return the sums over ranges of vertices."""
    indptr, tails, weights = edges
    for first, last in zip([0, *cuts], [*cuts, len(positions)], strict=True):
        part = slice(indptr[first], indptr[last])
        rows = indptr[first : last + 1] - indptr[first]
        yield pair_sums(positions, first, rows, tails[part], weights[part], A, B, KEY, **options)


def found(positions, edges, **options):
    sums = pair_sums(positions, 0, *edges, A, B, options.pop("key", KEY), **options)
    return diagnostics(sums, len(positions), len(edges[1]) // 2, DRAWS)


@pytest.mark.parametrize("d", [1, 2, 5])
def test_sums_over_all_pairs(d):
    dense, edges = graph(300, 0.05)
    positions = start(300, d)
    got, expected = (
        found(positions, edges, samples=4000),
        reference.diagnostics(positions, dense, A, B, DRAWS),
    )
    for name, value in expected.items():
        assert got[name] == pytest.approx(value, rel=1e-6 if name not in SAMPLED else 0.01), name


def test_the_standard_error_is_what_it_says_and_nothing_is_biased():
    """Over 200 seeds, on a map whose pairs differ as those of a map do: few are near, most are far."""
    rng = np.random.default_rng(0)
    positions = (rng.normal(size=(600, 2)) + 8 * rng.integers(0, 4, (600, 1))).astype(np.float32)
    near = np.linalg.norm(positions[:, None] - positions, axis=2) < 0.5
    dense = np.where(near, 0.5, 0).astype(np.float32)
    np.fill_diagonal(dense, 0)
    edges, expected = csr(dense), reference.diagnostics(positions, dense, A, B, DRAWS)
    runs = [found(positions, edges, key=key) for key in range(200)]
    sampled = np.array([run["non_edge_repulsion"] for run in runs])
    errors = np.array([run["non_edge_repulsion_se"] for run in runs])
    assert sampled.std(ddof=1) == pytest.approx(errors.mean(), rel=0.15)
    assert abs(sampled.mean() - expected["non_edge_repulsion"]) < 4 * errors.mean() / 200**0.5
    felt = np.array([run["effective_loss"] for run in runs])
    assert abs(felt.mean() - expected["effective_loss"]) < 4 * felt.std() / 200**0.5


@pytest.mark.parametrize("options", [{}, {"every": 4}])
def test_any_ranges_give_the_same_sums(options):
    _, edges = graph(500, 0.02)
    positions = start(500, 2)
    whole = pair_sums(positions, 0, *edges, A, B, KEY, **options)
    for cuts in ([250], [1, 2, 400]):
        parts = list(ranges(positions, edges, cuts, **options))
        assert add_sums(parts) == add_sums(reversed(parts)) == whole
    assert whole.placed == 500 if not options else 80 < whole.placed < 170


def test_weights_as_multiples_of_a_unit():
    _, (indptr, tails, weights) = graph(200, 0.05)
    positions, rates = start(200, 2), (weights / 2 * 2.0**32).astype(np.uint32)
    expected = pair_sums(positions, 0, indptr, tails, weights, A, B, KEY)
    got = pair_sums(positions, 0, indptr, tails, rates, A, B, KEY, unit=2 / 2**32)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_a_part_of_the_vertices_speaks_for_all():
    _, edges = graph(1500, 0.01)
    positions = start(1500, 2)
    all_, some = (loss_of(pair_sums(positions, 0, *edges, A, B, KEY, every=every), 1500) for every in (1, 4))
    assert some["attraction"] == pytest.approx(all_["attraction"], rel=0.1)
    assert some["repulsion"] == pytest.approx(all_["repulsion"], rel=0.1)
    whole = found(positions, edges)
    assert all_["repulsion"] == pytest.approx(whole["edge_repulsion"] + whole["non_edge_repulsion"])


def test_vertices_that_are_not_on_the_map_are_in_no_pair():
    dense, _ = graph(300, 0.05)
    gone = np.arange(300) % 3 == 0
    dense[gone] = dense[:, gone] = 0
    positions = start(300, 2)
    expected = reference.diagnostics(positions[~gone], dense[np.ix_(~gone, ~gone)], A, B, 0)
    positions[gone] = np.nan
    got = found(positions, csr(dense), samples=4000)
    assert got["attraction"] == pytest.approx(expected["attraction"], rel=1e-6)
    assert got["non_edge_repulsion"] == pytest.approx(expected["non_edge_repulsion"], rel=0.01)
    assert pair_sums(positions, 0, *csr(dense), A, B, KEY).placed == 200


def test_the_divergence_is_nought_where_weights_are_those_of_the_map_and_below_it_by_the_floor_alone():
    for seed in range(20):
        dense, edges = graph(60, 0.2, seed)
        scale = 10.0 ** (seed % 5 - 3)
        assert found(start(60, 2, scale), edges)["kl_divergence"] > 0
    positions = start(60, 2, 3)
    d2 = ((positions[:, None].astype(np.float64) - positions) ** 2).sum(2)
    same = np.where(dense > 0, 1 / (1 + A * d2**B), 0).astype(np.float32)
    got = found(positions, csr(same))
    assert got["kl_divergence"] < 1e-5 * got["graph_entropy"]
    # The floor takes most where both ends are in one place and the odds of the weight are 10,000 to 1.
    count, least = (dense > 0).sum() / 2, np.float32(1 / (1 + 1e-4))
    for weight in (0.9, 0.9999, least, 0.99999, 1.0):
        taken = -found(positions * 0, csr(np.where(dense > 0, np.float32(weight), 0)))["kl_divergence"]
        assert taken <= count * np.log1p(1e-4) * (1 + 1e-3)
    assert -found(positions * 0, csr(np.where(dense > 0, least, 0)))["kl_divergence"] == pytest.approx(
        count * np.log1p(1e-4), rel=1e-3
    )


def test_weights_are_clipped_and_constant_ones_have_no_entropy():
    dense, _ = graph(100, 0.1)
    positions, ones = start(100, 2), np.where(dense > 0, np.float32(1), 0)
    expected = found(positions, csr(ones))
    assert expected["graph_entropy"] == expected["bits_per_edge"] == expected["edge_repulsion"] == 0
    assert found(positions, csr(ones * 7)) == expected


@pytest.mark.parametrize(("places", "scale"), [(1, 1), (2, 1), (60, 0), (60, 1e30)])
def test_maps_that_are_none(places, scale):
    """One row, two, all in one place, and so far apart that a square is beyond float32."""
    _, edges = graph(places, 0.5 if places > 2 else 1.1)
    got = found(start(places, 2, scale), edges)
    assert np.isfinite(list(got.values())).all()
    assert (got["attraction"] > 0) == (places > 1 and scale > 0)
    if places == 2:  # The other one is always drawn, and is a neighbour.
        assert got["non_edge_repulsion"] == got["non_edge_repulsion_se"] == 0


def test_sums_are_whole_numbers():
    sums = pair_sums(start(9, 2), 0, *graph(9, 0.5)[1], A, B, KEY)
    assert isinstance(sums, Sums)
    assert {type(value) for value in sums} == {int}
