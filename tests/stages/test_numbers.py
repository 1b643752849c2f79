"""Values that the metric cannot measure, or that float32 cannot hold: saved exactly, or refused by row."""

import numpy as np
import pytest

from daskumap.errors import SourceError
from daskumap.sources.move import Move

QUICK = {"n_epochs": 3}


@pytest.fixture(scope="module")
def places():
    """400 places in degrees, latitude first, all over the globe."""
    rng = np.random.default_rng(0)
    return np.stack([rng.uniform(-85, 85, 400), rng.uniform(-180, 180, 400)], axis=1)


def test_degrees_under_haversine_are_refused_with_the_conversion(fit, places):
    with pytest.raises(SourceError, match=r"rows are no latitude .* in radians.*Pass numpy\.radians\(data\)"):
        fit(places, metric="haversine", **QUICK)
    swapped = np.radians(places)[:, ::-1]
    count = int((np.abs(swapped[:, 0]) > np.pi / 2).sum())
    with pytest.raises(
        SourceError, match=rf"^{count} of 400 rows are no.*\[:, ::-1\] where longitude is first"
    ):
        fit(swapped, metric="haversine", **QUICK)
    edges = np.radians(places)
    edges[:4] = [[np.pi / 2, np.pi], [-np.pi / 2, -np.pi], [0, 2 * np.pi], [0, 0]]
    assert np.isfinite(fit(edges, metric="haversine", **QUICK).embedding[:]).all()
    assert fit(places, metric="euclidean", **QUICK).finished


def true_recall(data, run, k=14):
    """Return the share of the exact Euclidean neighbours, in float64, that a run found."""
    far = np.abs(data).max()
    data = (data / far).astype("f8") if far > 0 else data
    squared = ((data[:, None] - data[None]) ** 2).sum(axis=2)
    np.fill_diagonal(squared, np.inf)
    exact = np.argpartition(squared, k, axis=1)[:, :k]
    return np.mean([len(set(a) & set(b)) / k for a, b in zip(exact, run.knn()[0], strict=True)])


@pytest.fixture(scope="module")
def unscaled():
    """The run of the data as they are, by metric."""
    return {}


@pytest.mark.parametrize("factor", [1e-300, 1e-40, 1e-23, 1e19, 1e36, 1e200])
@pytest.mark.parametrize("metric", ["euclidean", "manhattan", "cosine", "sqeuclidean"])
def test_data_are_scaled_to_where_float32_measures_them(fit, small, unscaled, factor, metric):
    exponent = round(np.log2(factor))
    data = small.astype("f8")
    if metric not in unscaled:
        unscaled[metric] = fit(data, metric=metric, **QUICK)
    plain, scaled = unscaled[metric], fit(np.ldexp(data, exponent), metric=metric, **QUICK)
    np.testing.assert_array_equal(scaled.embedding[:], plain.embedding[:])
    (ids, distances), (wanted, before) = scaled.knn(), plain.knn()
    np.testing.assert_array_equal(ids, wanted)
    degree = {"cosine": 0, "sqeuclidean": 2}.get(metric, 1)
    with np.errstate(over="ignore", under="ignore"):
        np.testing.assert_array_equal(distances, np.ldexp(before.astype("f8"), exponent * degree))
    if metric in ("euclidean", "sqeuclidean"):
        assert true_recall(data, scaled) > 0.9


@pytest.mark.parametrize("factor", [2.0**-130, 2.0**-76, 2.0**63])
def test_float32_is_scaled_too(fit, small, factor):
    """Squares of values of 1e-23 are 0 in float32: the true recall was .31, and the one reported 1.0."""
    data = (small * 1024).round().astype("f4")
    run = fit(data * np.float32(factor), report=True, **QUICK)
    np.testing.assert_array_equal(run.embedding[:], fit(data, **QUICK).embedding[:])
    assert run.report["measures"]["recall"] == pytest.approx(true_recall(data, run), abs=0.01)


def test_the_cutoff_is_in_the_unit_of_the_data(fit, small):
    data = np.ldexp(small.astype("f8"), -100)
    cutoff = float(np.median(fit(small, **QUICK).knn()[1]))
    plain = fit(small, disconnection_distance=cutoff, **QUICK).embedding[:]
    scaled = fit(data, disconnection_distance=float(np.ldexp(cutoff, -100)), **QUICK).embedding[:]
    np.testing.assert_array_equal(scaled, plain)
    assert not np.array_equal(plain, fit(small, **QUICK).embedding[:])


@pytest.mark.parametrize("metric", ["euclidean", "chebyshev"])
def test_data_far_from_zero_are_centred(fit, small, metric):
    data = small.astype("f8")
    run = fit(data + 1e9, metric=metric, report=True, **QUICK)
    assert true_recall(data, run) > 0.9 or metric == "chebyshev"
    found, wanted = run.knn(), fit(data, metric=metric, **QUICK).knn()
    assert np.mean(found[0] == wanted[0]) > 0.98
    np.testing.assert_allclose(found[1], wanted[1], rtol=1e-3)
    measures = run.report["measures"]
    assert (measures["sample_rows"], measures["distinct_rows_stored"]) == (400, 400)
    assert measures["distinct_rows_cast"] == 400
    assert measures["cast_recall"] > 0.99


@pytest.mark.parametrize("dtype", ["i8", "u8"])
def test_time_stamps_in_nanoseconds(fit, write, dtype):
    """As float32, 4 of 400 were distinct; as float64, stamps below 256 ns apart would not be."""
    stamps = 1_790_000_000_000_000_000 + np.sort(
        np.random.default_rng(0).integers(0, 10**6, (400, 1)), axis=0
    )
    run = fit(write(stamps.astype(dtype)), report=True, **QUICK)
    offsets = (stamps - stamps.min()).astype("f8")
    assert true_recall(offsets, run) > 0.97
    assert run.report["measures"]["distinct_rows_cast"] == len(np.unique(stamps))
    np.testing.assert_array_equal(run.embedding[:], fit(stamps.astype(dtype), **QUICK).embedding[:])


def test_differences_of_integers_that_wrap():
    """Over the whole range of 64 bits the difference of two may not fit into 64 bits itself."""
    values = np.array([[-(2**63)], [-5], [0], [7], [2**63 - 1]])
    for centre in (0, 7, -(2**63), 2**63 - 1):
        moved = Move(0, np.array([centre])).values(values)[:, 0]
        np.testing.assert_allclose(moved, [float(int(v) - centre) for v in values[:, 0]], rtol=1e-15)
    unsigned = np.array([[0], [5], [2**64 - 1]], "u8")
    assert Move(0, unsigned[1]).values(unsigned)[:, 0].tolist() == [-5.0, 0.0, float(2**64 - 6)]


def test_what_float32_cannot_tell_apart_is_refused_with_the_rows(fit, small):
    data = small.astype("f8")
    wide = np.concatenate([data[:, :7], np.arange(400)[:, None] * 1e12], axis=1)
    # Groups of 20 far from each other; what differs within them is lost.
    wide[:, 7] = np.repeat(wide[::20, 7], 20) + np.random.default_rng(0).uniform(0, 1e5, 400)
    with pytest.raises(
        SourceError, match=r"too coarse.*euclidean.*400 are distinct as stored and .*scale the col"
    ):
        fit(wide, **QUICK)
    with pytest.raises(
        SourceError, match=r"metric 'canberra'.*other neighbours: \d+, .*Subtract what all rows"
    ):
        fit(data * 1e-3 + 1e6, metric="canberra", **QUICK)


def test_copies_and_rounding_of_float64_are_no_loss(fit, small):
    """Rows that differ by what float64 rounds away are as good as equal."""
    data = np.repeat(small[:80].astype("f8"), 5, axis=0)
    noisy = data * (1 + np.random.default_rng(0).uniform(-1, 1, data.shape) * 2e-16)
    assert fit(noisy, **QUICK).finished
    assert fit(data, **QUICK).finished


def test_usual_data_stay_as_they_are(fit, small):
    facts = fit(small.astype("f8"), **QUICK).store.documents.load("facts/cast")
    assert (facts["exponent"], facts["centre"]) == (0, None)
    np.testing.assert_array_equal(
        fit(small.astype("f8"), **QUICK).embedding[:], fit(small, **QUICK).embedding[:]
    )


def test_one_value_of_netcdf_is_not_saved_by_a_scale_that_spoils_the_others(fit, small):
    data = small.copy()
    data[7, 3] = 9.97e36
    with pytest.raises(SourceError, match=r"^1 of 400 rows are so large .* the first: row 7\."):
        fit(data, **QUICK)


def test_moved_rows_are_the_same_for_all_engines(fit, small, write):
    data = small.astype("f8") * 1e-30 + 1e-22
    path = write(data, chunks=(37, 3))
    wanted = fit(data, **QUICK).embedding[:]
    for client in ("threads", "1x2"):
        np.testing.assert_array_equal(fit(path, client=client, **QUICK).embedding[:], wanted)


# Metrics that return no distance.


def with_nan(x, y):
    return np.nan if x[0] * y[0] < -1 else abs(x[0] - y[0])


def with_infinity(x, y):
    return 1.0 / max(0.0, abs(x[0] - y[0]) - 0.05) if abs(x[0] - y[0]) > 0.05 else np.inf


def below_zero(x, y):
    return x[0] - y[0]


@pytest.mark.parametrize("metric", [with_nan, with_infinity, below_zero])
def test_metrics_that_return_no_distance(fit, small, metric):
    message = r"returns NaN, infinity or a negative number for sampled pairs, such as those of rows \d+, "
    with pytest.raises(SourceError, match=message):
        fit(small, metric=metric, **QUICK)


def away_from_one(x, y):
    return np.nan if x[0] == 99.0 or y[0] == 99.0 else abs(x[0] - y[0]) + abs(x[1] - y[1])


def test_a_row_that_no_sample_met(fit, small):
    """It ended in an IndexError: the row has no cell."""
    data = np.concatenate([small] * 8)
    data[2001, 0] = 99.0
    with pytest.raises(
        SourceError, match=r"NaN or infinity from 1 of 3,200 rows to all cells; the first: row 2001"
    ):
        fit(data, metric=away_from_one, **QUICK)
