"""Makes umap_learn_fits.npz: graphs of umap-learn 0.5.12's fits, for which it compiles ten seconds.

python tests/stored/umap_learn_fits.py
"""

import warnings
from pathlib import Path

import numpy as np

import daskumap
from daskumap.testing.datasets import uneven_clusters

GRAPH_ROWS, FIT_ROWS, CUTOFF = 120, 200, 2.0
# The parameters of a graph of given neighbours.
OPTIONS = (
    {},
    {"n_neighbors": 2},
    {"n_neighbors": 100, "local_connectivity": 3.5},
    {"n_neighbors": 40, "set_op_mix_ratio": 0.7, "local_connectivity": 1.5},
    {"n_neighbors": 7, "set_op_mix_ratio": 0.3, "local_connectivity": 2.5},
    {"n_neighbors": 10, "set_op_mix_ratio": 0.0, "local_connectivity": 0.0},
    {"metric": "cosine"},
    {"metric": "minkowski", "metric_kwds": {"p": 3}},
)


def with_copies(rows):
    """Return 150 rows and 50 copies of some, shuffled."""
    return np.concatenate([rows[:150], rows[:50]])[np.random.default_rng(0).permutation(200)]


def of_neighbors(rows, options):
    """Return what umap-learn makes of our neighbours."""
    from umap.umap_ import fuzzy_simplicial_set

    run = daskumap.fit(rows, report=False, progress=False, n_epochs=3, random_state=1, **options)
    ids, distances = run.knn()
    return fuzzy_simplicial_set(
        rows,
        run.params["n_neighbors"],
        np.random.RandomState(0),
        "euclidean",
        knn_indices=np.hstack([np.arange(len(rows))[:, None], ids]),
        knn_dists=np.hstack([np.zeros((len(rows), 1), np.float32), distances]),
        set_op_mix_ratio=run.params["set_op_mix_ratio"],
        local_connectivity=run.params["local_connectivity"],
    )


def parts(name, graph, sigmas, rhos):
    """Return the arrays of a graph, and of its bandwidths."""
    graph.sort_indices()
    return {
        f"{name}_data": graph.data,
        f"{name}_indices": graph.indices.astype(np.uint8),
        f"{name}_indptr": graph.indptr.astype(np.uint16),
        f"{name}_sigmas": sigmas,
        f"{name}_rhos": rhos,
    }


def main():
    import umap

    rows = uneven_clusters(400, 8, 4, seed=1).rows()
    found = {}
    for number, options in enumerate(OPTIONS):
        found |= parts(f"graph{number}", *of_neighbors(rows[:GRAPH_ROWS], options))
    warnings.simplefilter("ignore")
    for name, data, options in (
        ("plain", rows[:FIT_ROWS], {}),
        ("unique", with_copies(rows), {"unique": True}),
        ("cut", rows[:FIT_ROWS], {"disconnection_distance": CUTOFF}),
    ):
        model = umap.UMAP(transform_mode="graph", **options).fit(data)
        found |= parts(name, model.graph_, model._sigmas, model._rhos)
        found[f"{name}_kind"] = type(model.graph_).__name__
        found[f"{name}_curve"] = model._a, model._b
        if name == "unique":
            found["unique_inverse"] = model._unique_inverse_
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **found)


if __name__ == "__main__":
    main()
