"""Parametric UMAP beside umap-learn's class: one run, the same graph, the same measures on held-out rows.

    python benchmarks/parametric.py environment PATH
    python benchmarks/parametric.py run --environment PATH --folder DIR [--seeds 3] [--quick] [--markdown]
                                        [--json FILE]

The first makes the environment of umap-learn's class, which needs TensorFlow (2 GB); the second makes it
too where it is missing. Fashion-MNIST: 60,000 rows to train on, 10,000 held out, pixels over 255. Each
contender is a process of its own with one thread; both get the neighbours that daskumap found, so that both
have the same graph (umap-learn computes its weights from them). CPU seconds of training steps are counted
apart from import, graph, data set of edges, compilation and embedding; peaks are VmHWM.

Each contender's figures are kept in --folder when they are there, and the same command goes on from them; the
tables say so where they are of more than one call. The exit code is 1 if a promise is broken. `--quick` is
5,000 rows, a fortieth of the steps and one seed, and judges no promise.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from compare import ROOT
from measure import Outcome, machine
from parametric_measures import REBUILT, Judge

UMAP = "umap-learn==0.5.12"
QUICK_ROWS, QUICK_SHARE = 5_000, 40
# The paper's figure of global structure weighs the correlation as much as the loss itself.
GLOBAL_WEIGHT = 1.0
# Steps after which umap-learn is judged: what 20 epochs start with, and its default, which ends at 0.
SHORT, LONG = [1_000, 4_000], [4_000, 16_000, 40_000, 0]
# Ours to the same quality as its 4,000 steps, by default, and what its default schedule is worth.
OURS_SHORT, OURS, OURS_LONG = 3_000, 6_000, 16_000
# Half of our default: so few steps get further with smaller batches.
SHORT_EDGES = 500
# Of the classifier alone the best of these counts.
ALONE = (250, 4_000, 16_000)
WIDE = 64
FEW = (4, 16)


@dataclass(frozen=True)
class Part:
    """One contender with one seed: what its process is asked to do."""

    side: str
    name: str
    seed: int
    kind: str
    asked: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """What it is called in the folder."""
        return f"{self.side}-{self.name}-{self.seed}"


def parts(seed: int, quick: bool) -> Iterator[Part]:
    """Yield all contenders with one seed, in turn; the long ones last."""

    def theirs(name: str, steps: list[int], **options: Any) -> Part:
        marks = [max(2, step // QUICK_SHARE) if quick and step else step for step in steps]
        return Part("peer", name, seed, "train", {"steps": marks, "options": options})

    def ours(name: str, steps: int, labels: int | None = None, **options: Any) -> Part:
        asked: dict[str, Any] = {"steps": steps // QUICK_SHARE if quick else steps, "options": options}
        return Part("ours", name, seed, "train", asked | ({"labels": labels} if labels else {}))

    yield theirs("short", SHORT, n_epochs=20)
    yield ours("short", OURS_SHORT, batch_edges=SHORT_EDGES)
    yield ours("default", OURS)
    yield ours("long", OURS_LONG)
    yield theirs("wide", SHORT[1:], n_epochs=20, n_components=WIDE)
    yield ours("wide", OURS_SHORT, batch_edges=SHORT_EDGES, n_components=WIDE)
    yield ours("wide-default", OURS, n_components=WIDE)
    yield theirs("global", SHORT[1:], n_epochs=20, global_correlation_loss_weight=GLOBAL_WEIGHT)
    yield ours("global", OURS_SHORT, batch_edges=SHORT_EDGES, global_weight=GLOBAL_WEIGHT)
    for name, joint in (("decoder", False), ("autoencoder", True)):
        yield theirs(name, SHORT[1:], n_epochs=20, parametric_reconstruction=True, autoencoder_loss=joint)
        weights = {"decoder": True, "autoencoder_weight": float(joint)}
        yield ours(name, OURS_SHORT, batch_edges=SHORT_EDGES, **weights)
    for few in FEW:
        yield ours(f"labels-{few}", OURS, labels=few)
        schedules = [steps // QUICK_SHARE if quick else steps for steps in ALONE]
        yield Part("ours", f"alone-{few}", seed, "alone", {"steps": schedules, "labels": few})
    rows = REBUILT // (10 if quick else 1)
    yield Part("ours", "layout", seed, "layout", {"rows": rows})
    yield Part("peer", "layout", seed, "inverse", {"rows": rows})
    yield theirs("default", LONG)


class Bench:
    """All parts, in a folder that keeps what is finished.

    Parameters
    ----------
    folder
        For the data, the maps and the figures.
    environment
        Where umap-learn's class is installed.
    """

    def __init__(self, folder: Path, environment: Path, quick: bool) -> None:
        self.folder, self.environment, self.quick = folder, environment, quick
        self.data, self.session = folder / "data", time.strftime("%Y-%m-%d %H:%M:%S")
        self.data.mkdir(parents=True, exist_ok=True)

    def figures(self, part: Part) -> dict[str, Any]:
        """Return the figures of a part: those that are kept, if it was asked for the same, or new ones."""
        place, asked = self.folder / f"{part.key}.json", {"kind": part.kind, "seed": part.seed, **part.asked}
        if place.exists() and (kept := json.loads(place.read_text()))["asked"] == asked:
            return dict(kept)
        print(part.key, file=sys.stderr, flush=True)
        found = {"asked": asked, "session": self.session, **self._measure(part, asked)}
        unfinished = place.with_suffix(".part")
        unfinished.write_text(json.dumps(found, indent=1))
        unfinished.replace(place)
        return found

    def _measure(self, part: Part, asked: dict[str, Any]) -> dict[str, Any]:
        """Let a part run in a process of its own, and judge the maps that it left."""
        self.prepare()
        out = self.folder / part.key
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        task = self.folder / "task.json"
        task.write_text(json.dumps({**asked, "data": str(self.data), "out": str(out)}))
        found = call(part.side, self.environment, task)
        for steps, figures in found["steps"].items():
            places, held = (np.load(out / f"{name}-{steps}.npy") for name in ("rows", "held"))
            figures |= self.judge.measure(places, held)
            if (rebuilt := out / f"rebuilt-{steps}.npy").exists():
                figures["reconstruction"] = self.judge.reconstruction(np.load(rebuilt))
        shutil.rmtree(out)
        return found

    def prepare(self) -> None:
        """Write the rows, and fit the graph that all trainings share."""
        import daskumap
        from daskumap.testing.datasets import fashion_mnist

        if (self.data / "distances.npy").exists():
            return
        pictures, cut = fashion_mnist(), QUICK_ROWS if self.quick else 60_000
        rows, labels = pictures.rows() / np.float32(255), pictures.labels()
        # Held out are the data set's own test rows, which are its last 10,000.
        chosen = np.r_[0:cut, 60_000 : 60_000 + min(cut, 10_000)]
        np.save(self.data / "labels.npy", labels[chosen])
        np.save(self.data / "rows.npy", rows[:cut])
        np.save(self.data / "held.npy", rows[chosen[cut:]])
        place = str(self.data / "graph.zarr")
        options: dict[str, Any] = {"transform_mode": "graph", "report": False, "progress": False}
        run = daskumap.fit(rows[:cut], place, random_state=0, restart=Path(place).exists(), **options)
        near, distances = run.knn()
        # umap-learn's lists of neighbours begin with the row itself.
        np.save(self.data / "knn.npy", np.column_stack([np.arange(cut), near]))
        np.save(self.data / "distances.npy", np.column_stack([np.zeros(cut), distances]).astype(np.float32))

    @cached_property
    def judge(self) -> Any:
        """What judges all maps."""
        import daskumap
        from daskumap.params import Params

        rows, held, labels = (np.load(self.data / f"{name}.npy") for name in ("rows", "held", "labels"))
        graph = daskumap.open(str(self.data / "graph.zarr")).graph()
        return Judge(rows, held, labels, graph, Params().curve())


def call(side: str, environment: Path, task: Path) -> dict[str, Any]:
    """Run a task in a fresh process with one thread, by the interpreter that its side needs."""
    python = sys.executable if side == "ours" else str(environment / "bin" / "python")
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    paths = filter(None, (os.environ.get("PYTHONPATH"), str(ROOT)))
    own = {"PYTHONPATH": os.pathsep.join(paths)} if side == "ours" else {"TF_CPP_MIN_LOG_LEVEL": "2"}
    done = subprocess.run(
        [python, str(Path(__file__).with_name(f"parametric_{side}.py")), str(task)],
        env={**os.environ, **dict.fromkeys(threads, "1"), **own},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    # The tools may print as well; the last line is ours.
    return dict(json.loads(done.stdout.splitlines()[-1]))


def make_environment(path: Path) -> None:
    """Make the environment of umap-learn's class; one that is there is left as it is."""
    python = path / "bin" / "python"
    if (path / "finished").exists():
        return
    small = platform.system() == "Linux" and platform.machine() == "x86_64"
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(path)], check=True)
    framework = "tensorflow-cpu" if small else "tensorflow"
    subprocess.run([python, "-m", "pip", "install", "--quiet", UMAP, framework], check=True)
    (path / "finished").touch()


def run(arguments: argparse.Namespace) -> Outcome:
    """Measure what is missing, and return all of it with the promises."""
    from parametric_tables import outcome

    make_environment(arguments.environment)
    seeds = 1 if arguments.quick else arguments.seeds
    bench = Bench(arguments.folder, arguments.environment, arguments.quick)
    found: dict[str, list[dict[str, Any]]] = {}
    for seed in range(seeds):
        for part in parts(seed, arguments.quick):
            found.setdefault(f"{part.side}-{part.name}", []).append(bench.figures(part))
    title = f"Fashion-MNIST, {seeds} seeds, one thread, {machine()}"
    return outcome(title, found, judged=not arguments.quick)


def main(argv: list[str] | None = None) -> int:
    """Do what the command line asks for, and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("environment", help="make it").add_argument("path", type=Path)
    command = commands.add_parser("run", help="measure, print, judge")
    command.add_argument("--environment", type=Path, required=True, help="of umap-learn's class")
    command.add_argument("--folder", type=Path, required=True, help="keeps what is finished; 2 GB")
    command.add_argument("--seeds", type=int, default=3)
    command.add_argument("--quick", action="store_true", help="few rows and steps, one seed; nothing judged")
    command.add_argument("--markdown", action="store_true", help="print Markdown tables")
    command.add_argument("--json", type=Path, help="write all figures to this file")
    arguments = parser.parse_args(argv)
    # Runs from a checkout as well, where daskumap need not be installed.
    sys.path.append(str(ROOT))
    if arguments.command == "environment":
        make_environment(arguments.path)
        return 0
    found = run(arguments)
    print(found.text(arguments.markdown))
    if arguments.json:
        arguments.json.write_text(json.dumps(found.figures, indent=1))
    return int(not found.kept)


if __name__ == "__main__":
    sys.exit(main())
