"""What umap-learn does with models of ours, without the compiler: its kernels take seconds to compile.

    NUMBA_DISABLE_JIT=1 python theirs.py FOLDER

The folder has `run.zarr`, a run of ours, and `rows.npz`. What is left there is a fitted estimator of
umap-learn's as a pickle, and what it, and ours as one of theirs, say of new rows.
"""

import pickle
import sys
import warnings
from pathlib import Path

import numpy as np
import umap

import daskumap
from daskumap import UMAP


def main(folder):
    """Fit, and ask both."""
    warnings.simplefilter("ignore")
    rows = np.load(folder / "rows.npz")
    options = {"n_neighbors": 8, "n_epochs": 12, "min_dist": 0.2, "random_state": 3}
    fitted = umap.UMAP(**options).fit(rows["fitted"])
    found = asked(fitted, rows, "theirs")
    found |= asked(daskumap.open(folder / "run.zarr").to_umap(), rows, "ours")
    found |= asked(UMAP.from_umap(fitted).to_umap(), rows, "back")
    np.savez(folder / "found.npz", **found)
    (folder / "fitted.pickle").write_bytes(pickle.dumps(fitted))


def asked(model, rows, name):
    """Return what a model of umap-learn's says of new rows, and of places on its map."""
    return {
        f"{name}_map": model.embedding_,
        f"{name}_new": model.transform(rows["new"]),
        f"{name}_fitted": model.transform(rows["fitted"]),
        f"{name}_inverse": model.inverse_transform(model.embedding_[:4]),
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
