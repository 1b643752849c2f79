"""Maps of the same rows beside one another: aligned as SciPy does it, by neighbours, block by block."""

import json

import numpy as np
import pytest
import zarr
from scipy.spatial import procrustes
from sklearn.neighbors import NearestNeighbors

import daskumap
from daskumap.errors import ParameterError
from daskumap.evaluation import stability as module

ROWS = 500


@pytest.fixture(scope="module")
def maps():
    """Five maps of the same rows: one, and four of it that were moved and blurred."""
    rng = np.random.default_rng(0)
    first = rng.normal(size=(ROWS, 2)) * [3, 1] + [40, -7]
    found = [first]
    for number in range(4):
        turn = np.linalg.qr(rng.normal(size=(2, 2)))[0] * rng.uniform(0.1, 9)
        found.append(
            first @ turn + rng.normal(size=2) * 50 + rng.normal(size=first.shape) * (0.2 * number + 0.1)
        )
    return [one.astype(np.float32) for one in found]


def test_alignment_is_that_of_scipy(maps):
    found = daskumap.stability(maps)
    for (a, b), disparity in found.disparities.items():
        assert disparity == pytest.approx(
            procrustes(maps[a].astype(float), maps[b].astype(float))[2], abs=1e-6
        )
    assert len(found.disparities) == 10
    assert found.disparity.value == pytest.approx(np.mean(list(found.disparities.values())))
    assert 0 <= found.disparity.low < found.disparity.value < found.disparity.high <= 1


def test_displacement_is_what_scipy_leaves(maps):
    one, other, _ = procrustes(maps[0].astype(float), maps[3].astype(float))
    apart = np.linalg.norm(one - other, axis=1) * ROWS**0.5
    found = daskumap.stability([maps[0], maps[3]]).displacement()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, apart, atol=1e-4)
    three = daskumap.stability(maps[:3])
    assert np.mean(three.displacement() ** 2) == pytest.approx(three.disparity.value, abs=1e-6)


def test_common_neighbours(maps):
    near = [
        NearestNeighbors(n_neighbors=7).fit(one).kneighbors(return_distance=False)
        for one in (maps[0], maps[3])
    ]
    expected = np.mean([len(np.intersect1d(a, b)) / 7 for a, b in zip(*near, strict=True)])
    found = daskumap.stability([maps[0], maps[3]], n_neighbors=7)
    assert found.neighbors_kept.value == pytest.approx(expected)
    assert found.chance == pytest.approx(7 / (ROWS - 1))
    few = daskumap.stability(maps, n_neighbors=7, probe_rows=60).neighbors_kept
    all_rows = daskumap.stability(maps, n_neighbors=7).neighbors_kept
    assert few.low < all_rows.value < few.high


def test_a_map_that_was_moved_is_the_same_and_another_is_none(maps):
    first = maps[0]
    turned = first[:, ::-1] * [-3.0, 3.0] + 11
    same = daskumap.stability([first, turned])
    assert same.disparity.value == pytest.approx(0, abs=1e-9)
    assert same.neighbors_kept.value > 0.999
    assert np.isnan(same.disparity.low)  # two maps do not say what a third might be
    assert same.as_dict()["disparity"] == {"value": same.disparity.value, "low": None, "high": None}
    mixed = daskumap.stability([first, np.random.default_rng(1).permutation(first)])
    assert mixed.disparity.value > 0.95
    assert mixed.neighbors_kept.value < 3 * mixed.chance


def test_intervals_cover_the_next_seeds():
    """Of 60 sets of four maps some 57 intervals hold the mean of all pairs there are."""
    rng = np.random.default_rng(3)
    base = rng.normal(size=(80, 2))

    def draw(count):
        scales = rng.uniform(0.1, 0.9, count)
        return [(base + rng.normal(size=base.shape) * scale).astype(np.float32) for scale in scales]

    truth = module._of_pairs(_disparities(draw(60)), 60).value
    hit = 0
    for _ in range(60):
        found = module._of_pairs(_disparities(draw(4)), 4)
        hit += found.low < truth < found.high
    assert hit >= 53


def _disparities(maps):
    return {
        (a, b): procrustes(maps[a].astype(float), maps[b].astype(float))[2]
        for a in range(len(maps))
        for b in range(a + 1, len(maps))
    }


def test_maps_are_read_in_blocks_wherever_they_are(maps, tmp_path, monkeypatch):
    maps = maps[:3]
    at_once = daskumap.stability(maps)
    for number, one in enumerate(maps):
        zarr.create_array(str(tmp_path / f"{number}.zarr"), data=one, chunks=(70, 2))
    monkeypatch.setattr(module, "BLOCK_BYTES", 150 * 16)
    streamed = daskumap.stability([tmp_path / f"{number}.zarr" for number in range(len(maps))])
    assert streamed.common_neighbors == at_once.common_neighbors
    np.testing.assert_allclose(list(streamed.disparities.values()), list(at_once.disparities.values()))
    np.testing.assert_allclose(streamed.displacement(), at_once.displacement(), rtol=1e-5)


def test_rows_that_are_not_on_all_maps_are_left_out(maps):
    holed = [one.copy() for one in maps[:3]]
    holed[1][::5] = np.nan
    holed[2][1] = np.nan
    there = np.isfinite(np.hstack(holed)).all(axis=1)
    found, expected = daskumap.stability(holed), daskumap.stability([one[there] for one in holed])
    assert found.disparities == expected.disparities
    assert found.rows == there.sum()
    moved = found.displacement()
    assert (np.isnan(moved) == ~there).all()
    np.testing.assert_array_equal(moved[there], expected.displacement())


def test_runs(tmp_path):
    X = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
    runs = [
        daskumap.fit(X, client="sequential", progress=False, report=False, n_epochs=5, random_state=seed)
        for seed in (1, 2)
    ]
    found = daskumap.stability(runs)
    assert found.disparities == daskumap.stability([run.embedding[:] for run in runs]).disparities
    assert json.loads(json.dumps(found.as_dict()))["rows"] == 200
    assert "common neighbours" in str(found)
    other = daskumap.fit(X + 1, client="sequential", progress=False, report=False, n_epochs=5, random_state=1)
    with pytest.raises(ParameterError, match="runs are of different rows"):
        daskumap.stability([runs[0], other])


def test_mistakes(maps):
    with pytest.raises(ParameterError, match="a list of two or more"):
        daskumap.stability(maps[0])
    with pytest.raises(ParameterError, match="a list of two or more"):
        daskumap.stability(maps[:1])
    with pytest.raises(ParameterError, match="embedding has 499 rows, the first map 500"):
        daskumap.stability([maps[0], maps[1][:-1]])
    with pytest.raises(ParameterError, match="Map 2 has 1 columns, the first one 2"):
        daskumap.stability([maps[0], maps[1][:, :1]])
    with pytest.raises(ParameterError, match="map 2 has all rows at one place"):
        daskumap.stability([maps[0], np.ones((ROWS, 2))])
    with pytest.raises(ParameterError, match=r"n_neighbors=400: .* Lower n_neighbors to 332"):
        daskumap.stability(maps, n_neighbors=400)
    nowhere = np.full((ROWS, 2), np.nan)
    with pytest.raises(ParameterError, match="0 rows with a place"):
        daskumap.stability([maps[0], nowhere])
