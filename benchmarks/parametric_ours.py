"""daskumap's side of benchmarks/parametric.py: one contender in a process of its own.

    python parametric_ours.py TASK.json

A task is a dictionary with `kind`, one of `WORK`, and what that function reads; arrays go to the folder that
it names, figures to the last line of the output. All of it is computed in this process, by one thread.
"""

import importlib
import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))


def importing(*names: str) -> float:
    """Import modules, and return the CPU seconds that it took."""
    began = time.process_time()
    for name in names:
        importlib.import_module(name)
    return time.process_time() - began


# Before all else, as this process has imported nothing yet. What scikit-learn's base classes take is apart:
# an estimator of its kind needs them, whosever it is.
NEEDED = importing("sklearn.base", "sklearn.utils.validation")
OWN = importing("daskumap", "daskumap.parametric")

import numpy as np  # noqa: E402
from measure import status_bytes  # noqa: E402
from parametric_peer import per_row  # noqa: E402

import daskumap  # noqa: E402

Array = np.ndarray[Any, Any]
HERE: dict[str, Any] = {"client": "sequential", "progress": False}
HIDDEN, AXES, RATE = (100, 100, 100), 64, 1e-2


def data_of(task: dict[str, Any]) -> tuple[Array, Array]:
    """Return the rows that are trained on, and those that are held out."""
    data = Path(task["data"])
    return np.load(data / "rows.npy"), np.load(data / "held.npy")


def train(task: dict[str, Any]) -> dict[str, Any]:
    """Train on the graph, and leave the map after it in `out`; with labels also how many are right."""
    data, out, steps = Path(task["data"]), Path(task["out"]), task["steps"]
    options = {"report": False, "random_state": task["seed"], "steps": steps, **task["options"]}
    given = labels_of(task)
    warm_up(options, given is not None)
    clock = timed_steps()
    began = time.process_time()
    run = daskumap.train(str(data / "graph.zarr"), str(out / "run.zarr"), labels=given, **HERE, **options)
    figures: dict[str, Any] = {
        "import_cpu": NEEDED + OWN,
        "own_import_cpu": OWN,
        "train_cpu": time.process_time() - began,
        "peak": status_bytes("VmHWM"),
        "steps": {str(steps): {"cpu": clock["cpu"]}},
    }
    rows, held = data_of(task)
    encoder = run.encoder
    np.save(out / f"rows-{steps}.npy", run.embedding[:])
    np.save(out / f"held-{steps}.npy", places := encoder.made_of("encode", held, threads=1))
    if options.get("decoder"):
        np.save(out / f"rebuilt-{steps}.npy", encoder.made_of("decode", places, threads=1))
        decode = per_row(lambda: encoder.made_of("decode", places, threads=1), len(places))
        figures["decode_cpu_per_row"] = decode
    if given is not None:
        found = encoder.labels_of(held, threads=1)
        figures["accuracy"] = float(np.mean(found == np.load(data / "labels.npy")[len(rows) :]))
    figures["embed_cpu_per_row"] = per_row(lambda: encoder.made_of("encode", rows, threads=1), len(rows))
    return figures


def warm_up(options: dict[str, Any], labelled: bool) -> None:
    """Train for a few steps on a few rows, so that compiling and loading kernels does not count."""
    rows = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
    run = daskumap.fit(rows, transform_mode="graph", report=False, **HERE)
    labels = np.arange(len(rows)) % 3 if labelled else None
    daskumap.train(run, labels=labels, **HERE, **{**options, "steps": 5, "warm_start": 0.0})


def timed_steps() -> dict[str, float]:
    """Put a clock around the steps of the training, which `train` runs in segments."""
    from daskumap.stages.encoder import train as module

    run_steps, found = module.run_steps, {"cpu": 0.0}

    def timed(*args: Any, **kwargs: Any) -> Any:
        began = time.process_time()
        result = run_steps(*args, **kwargs)
        found["cpu"] += time.process_time() - began
        return result

    module.run_steps = timed
    return found


def labels_of(task: dict[str, Any]) -> Array | None:
    """Return so many labels of each class, drawn by the seed, and -1 for the other rows; None without any."""
    if "labels" not in task:
        return None
    rows = len(np.load(Path(task["data"]) / "rows.npy", mmap_mode="r"))
    known = np.load(Path(task["data"]) / "labels.npy")[:rows]
    drawn = np.random.default_rng(task["seed"])
    given = np.full(rows, -1)
    for label in np.unique(known):
        chosen = drawn.choice(np.flatnonzero(known == label), task["labels"], replace=False)
        given[chosen] = label
    return given


def alone(task: dict[str, Any]) -> dict[str, Any]:
    """Train the same network on the labels alone: no graph, no other rows. Its best schedule counts.

    It is the best by the held-out rows, so that the classifier alone has an advantage.
    """
    from daskumap.kernels.encoder import draw, training
    from daskumap.kernels.encoder.backend import Perceptron
    from daskumap.kernels.encoder.batch import Settings
    from daskumap.kernels.encoder.sampler import Sampler

    rows, held = data_of(task)
    wanted, given = np.load(Path(task["data"]) / "labels.npy")[len(rows) :], labels_of(task)
    assert given is not None
    mean = rows.mean(axis=0)
    # The axes of a sample, as the training has them.
    axes = np.linalg.svd(rows[::6] - mean, full_matrices=False)[2][:AXES].T
    trained, asked = ((part - mean) @ axes for part in (rows[given >= 0], held))
    nowhere = draw.Edges.of(np.zeros(len(trained) + 1), np.empty(0), np.empty(0))
    network = Perceptron.of(trained.shape[1], HIDDEN, 2, classes=int(given.max()) + 1)
    accuracy = {}
    for steps in task["steps"]:
        settings = Settings(1.0, 1.0, steps, learning_rate=RATE)
        sampler = Sampler(trained, nowhere, task["seed"], settings, labels=given[given >= 0].astype(np.int32))
        state, _ = training.run_steps(
            network, training.start(network, task["seed"]), sampler, 0, steps, settings
        )
        found = network.scores(state[0], asked).argmax(axis=1)
        accuracy[str(steps)] = float(np.mean(found == wanted))
    return {"accuracy": max(accuracy.values()), "by_steps": accuracy, "steps": {}}


def layout(task: dict[str, Any]) -> dict[str, Any]:
    """Fit the map that is not parametric, place the held-out rows on it and bring some of them back."""
    out = Path(task["out"])
    rows, held = data_of(task)
    run = daskumap.fit(rows, random_state=task["seed"], report=False, **HERE)
    places = run.transform(held, **HERE).embedding[:]
    np.save(out / "rows-0.npy", run.embedding[:])
    np.save(out / "held-0.npy", places)
    run.inverse_transform(places[-5:], **HERE)  # It compiles.
    began = time.process_time()
    rebuilt = run.inverse_transform(places[: task["rows"]], **HERE).rows[:]
    cpu = time.process_time() - began
    np.save(out / "rebuilt-0.npy", rebuilt)
    return {"inverse_cpu_per_row": cpu / task["rows"], "peak": status_bytes("VmHWM"), "steps": {"0": {}}}


WORK = {"train": train, "alone": alone, "layout": layout}

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    asked = json.loads(Path(sys.argv[1]).read_text())
    print(json.dumps(WORK[asked["kind"]](asked)))
