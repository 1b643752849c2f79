"""Makes the run store of a format, for the test that later versions read it.

    python tests/data/make_format.py tests/data/format5.zip

Run it with the last version that writes a format, before the next one does. The zip has the run store of 300
rows, which came from memory, so that it has them; what the version says of 20 new ones and 10 fitted ones is
in `expected.npz` beside it.
"""

import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

import daskumap
from daskumap.testing.datasets import uneven_clusters

QUIET = {"client": "sequential", "progress": False}


def main(target):
    """Fit, transform, and put both into a zip."""
    rows = uneven_clusters(320, 6, 3, seed=1).rows()
    with tempfile.TemporaryDirectory() as folder:
        run = daskumap.fit(
            rows[:300], f"{folder}/run.zarr", n_neighbors=6, n_epochs=30, random_state=1, **QUIET
        )
        Path(folder, "run.zarr", "embedding.png").unlink()  # half of the bytes otherwise
        run.store.documents.save("generations/00000000", {"id": "", "host": "a host", "pid": 0, "time": 0})
        new = np.concatenate([rows[300:], rows[:10]])
        placed = run.transform(new, **QUIET)
        np.savez_compressed(
            f"{folder}/expected.npz", new=new, places=placed.embedding[:], fit_distance=placed.fit_distance[:]
        )
        shutil.make_archive(target.removesuffix(".zip"), "zip", folder)


if __name__ == "__main__":
    main(sys.argv[1])
