"""Components and islands of whole fits: against the published map, and whatever the blocks."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from daskumap.params import fit_curve

SHAPES = ("components", "largest_component", "islands", "island_rows", "longest_aspect", "longest_island")


def shapes(run):
    return {name: value for name, value in run.report["measures"].items() if name in SHAPES}


def expected(run):
    """Return the same figures from the neighbours and the map as a user sees them."""
    map_, (ids, _) = run.embedding[:].astype(float), run.knn()
    heads, tails = np.repeat(np.arange(len(ids)), ids.shape[1]), ids.ravel()
    a, b = fit_curve(1.0, 0.1)
    short = 1 / (1 + a * np.linalg.norm(map_[heads] - map_[tails], axis=1) ** (2 * b)) >= 0.5
    labels = [
        connected_components(csr_matrix((np.ones(on.sum()), (heads[on], tails[on])), (len(ids),) * 2))[1]
        for on in (np.ones(len(heads), bool), short)
    ]
    sizes = np.bincount(labels[1])
    axes = {
        kind: np.sqrt(np.linalg.eigvalsh(np.cov(map_[labels[1] == kind].T)))
        for kind in np.flatnonzero(sizes >= 50)
    }
    longest = max(axes, key=lambda kind: axes[kind][1] / axes[kind][0])
    return {
        "components": labels[0].max() + 1,
        "largest_component": np.bincount(labels[0]).max(),
        "islands": len(axes),
        "island_rows": sizes[list(axes)].sum(),
        "longest_aspect": pytest.approx(axes[longest][1] / axes[longest][0], rel=1e-3),
        "longest_island": sizes[longest],
    }


def test_the_shapes_are_those_of_the_map(fit, clustered):
    run = fit(clustered[:2000], n_epochs=50, report=True)
    assert shapes(run) == expected(run)


def test_the_same_shapes_whatever_the_blocks(fit, clustered, block_sizes):
    X = clustered[:4000]
    whole = shapes(fit(X, report=True, n_epochs=10))
    assert set(whole) == set(SHAPES)
    block_sizes(row_block=801, chunks=1)
    run = fit(X, report=True, n_epochs=10)
    assert run.report["steps"]["report.loss"]["tasks"] > 3
    assert shapes(run) == whole


def test_copies_count_once_with_unique(fit, small):
    alone = shapes(fit(small, report=True, n_epochs=50))
    found = shapes(fit(np.repeat(small, 2, axis=0), unique=True, report=True, n_epochs=50))
    assert found["largest_component"] == alone["largest_component"]
    assert found["island_rows"] <= len(small)


def test_one_component_has_no_shape(fit, small):
    run = fit(small, n_components=1, n_epochs=20, report=True)
    assert set(shapes(run)) == {"components", "largest_component"}
    assert "longest island" not in str(run)
