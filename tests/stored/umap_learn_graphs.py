"""Makes umap_learn_graphs.npz: umap-learn 0.5.12's graphs of distances, for which it compiles half a minute.

Of all distances stored as CSR the graphs are the same to the bit, of the rows themselves they differ by less
than 1e-6 (tried when this was made).

    python tests/stored/umap_learn_graphs.py
"""

from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix
from scipy.spatial.distance import cdist

from daskumap.testing.datasets import uneven_clusters

FITTED, NEW, NEIGHBORS = slice(0, 120), slice(120, 160), 10


def main():
    import umap

    rows = uneven_clusters(400, 8, 4, seed=1).rows()
    D = cdist(rows, rows).astype(np.float32)
    model = umap.UMAP(n_neighbors=NEIGHBORS, transform_mode="graph", metric="precomputed")
    model.fit(D[FITTED, FITTED])
    found = {"rhos": model._rhos}
    for name, graph in (("graph", model.graph_), ("new", csr_matrix(model.transform(D[NEW, FITTED])))):
        graph.sum_duplicates()
        found[f"{name}_data"] = graph.data
        found[f"{name}_indices"] = graph.indices.astype(np.uint8)
        found[f"{name}_indptr"] = graph.indptr.astype(np.uint16)
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **found)


if __name__ == "__main__":
    main()
