"""umap-learn's side of benchmarks/parametric.py, run by the interpreter of an environment with TensorFlow.

    python parametric_peer.py TASK.json

It imports nothing of daskumap, which that environment does not have. A task is a dictionary with `kind`, one
of `WORK`, and what that function reads; arrays go to the folder that it names, figures to the last line of
the output.
"""

import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

# Rows that are embedded while the clock runs, after a first call that traces the network.
EMBEDDED = 5


def status_bytes(name: str) -> int:
    """Return a figure of /proc/self/status such as VmHWM, in bytes. measure.py is not importable here."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def one_thread() -> Any:
    """Import TensorFlow and bind it to one thread; OMP_NUM_THREADS alone does not."""
    import tensorflow

    tensorflow.config.threading.set_intra_op_parallelism_threads(1)
    tensorflow.config.threading.set_inter_op_parallelism_threads(1)
    return tensorflow


def clock(marks: list[int], out: Path) -> Any:
    """Return a callback that takes CPU time and weights after so many steps, and stops after the last.

    A last mark of 0 lets the schedule run to its end.

    The rate of umap-learn's Adam is constant, so that the first steps of a schedule are a shorter schedule.
    The first step, which traces and compiles, is left out, and its time taken as that of the others.
    """
    import keras

    class Clock(keras.callbacks.Callback):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.count, self.apart = 0, 0.0
            self.begun = self.first = 0.0
            self.cpu: dict[int, float] = {}
            self.before = 0

        def on_train_begin(self, logs: Any = None) -> None:
            self.begun, self.before = time.process_time(), status_bytes("VmHWM")

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.count += 1
            now = time.process_time()
            if self.count == 1:
                self.first = now
            if self.count in marks:
                self.keep(now)
                self.apart += time.process_time() - now
            self.model.stop_training = self.count == marks[-1]

        def on_train_end(self, logs: Any = None) -> None:
            if self.count not in self.cpu:
                self.keep(time.process_time())

        def keep(self, now: float) -> None:
            """Write the weights, and how many seconds of CPU the steps took that led to them."""
            self.cpu[self.count] = (now - self.first - self.apart) * self.count / (self.count - 1)
            for name in networks(self.model):
                np.savez(out / f"{name}-{self.count}.npz", *getattr(self.model, name).get_weights())

    return Clock()


def networks(model: Any) -> list[str]:
    """Return the names of the networks that a model has."""
    return [name for name in ("encoder", "decoder") if getattr(model, name) is not None]


def use(model: Any, steps: int, out: Path) -> None:
    """Give the networks of a model the weights that they had after so many steps."""
    for name in networks(model):
        with np.load(out / f"{name}-{steps}.npz") as weights:
            getattr(model, name).set_weights(list(weights.values()))


def train(task: dict[str, Any]) -> dict[str, Any]:
    """Train for `steps[-1]` steps, and leave the maps after each of `steps` in `out`."""
    began = time.process_time()
    one_thread()
    from umap import parametric_umap

    imported = time.process_time() - began
    data, out = Path(task["data"]), Path(task["out"])
    rows, held = np.load(data / "rows.npy"), np.load(data / "held.npy")
    options = dict(task["options"])
    if options.get("parametric_reconstruction"):
        import keras

        # Its default, a cross-entropy of logits, would leave logits as reconstructions.
        options["parametric_reconstruction_loss_fcn"] = keras.losses.MeanSquaredError()
    ticks = clock(task["steps"], out)
    edges = timed_edges(parametric_umap)
    began = time.process_time()
    model = parametric_umap.ParametricUMAP(
        random_state=task["seed"],
        precomputed_knn=(np.load(data / "knn.npy"), np.load(data / "distances.npy")),
        keras_fit_kwargs={"callbacks": [ticks], "verbose": 0},
        **options,
    ).fit(rows)
    figures: dict[str, Any] = {
        "import_cpu": imported,
        "graph_cpu": edges["began"] - began,
        "edges_cpu": edges["cpu"],
        "edges": edges["edges"],
        "compile_cpu": ticks.first - ticks.begun,
        "peak_before": ticks.before,
        "peak": status_bytes("VmHWM"),
        "steps": {},
    }
    for steps, cpu in ticks.cpu.items():
        use(model, steps, out)
        np.save(out / f"rows-{steps}.npy", model.transform(rows))
        np.save(out / f"held-{steps}.npy", places := model.transform(held))
        if model.parametric_reconstruction:
            np.save(out / f"rebuilt-{steps}.npy", model.inverse_transform(places))
            decode = per_row(lambda: model.inverse_transform(places), len(places))
            figures["decode_cpu_per_row"] = decode
        figures["steps"][str(steps)] = {"cpu": cpu}
    figures["embed_cpu_per_row"] = per_row(lambda: model.transform(rows), len(rows))
    return figures


def timed_edges(module: Any) -> dict[str, Any]:
    """Put a clock around the data set of edges, which `fit` makes between its graph and its training."""
    made, found = module.construct_edge_dataset, {}

    def timed(*args: Any, **kwargs: Any) -> Any:
        found["began"] = time.process_time()
        result = made(*args, **kwargs)
        found["cpu"] = time.process_time() - found["began"]
        found["edges"] = int(result[2])
        return result

    module.construct_edge_dataset = timed
    return found


def per_row(call: Any, rows: int) -> float:
    """Return the least CPU seconds a row of some calls."""
    seconds = []
    for _ in range(EMBEDDED):
        began = time.process_time()
        call()
        seconds.append(time.process_time() - began)
    return min(seconds) / rows


def inverse(task: dict[str, Any]) -> dict[str, Any]:
    """Fit the map that is not parametric, place the held-out rows on it and bring some of them back."""
    import umap

    data, out = Path(task["data"]), Path(task["out"])
    rows, held = np.load(data / "rows.npy"), np.load(data / "held.npy")
    model = umap.UMAP(random_state=task["seed"]).fit(rows)
    places = model.transform(held)
    np.save(out / "rows-0.npy", model.embedding_)
    np.save(out / "held-0.npy", places)
    model.inverse_transform(places[-5:])  # It compiles.
    began = time.process_time()
    rebuilt = model.inverse_transform(places[: task["rows"]])
    cpu = time.process_time() - began
    np.save(out / "rebuilt-0.npy", rebuilt)
    return {"inverse_cpu_per_row": cpu / task["rows"], "peak": status_bytes("VmHWM"), "steps": {"0": {}}}


WORK = {"train": train, "inverse": inverse}

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    asked = json.loads(Path(sys.argv[1]).read_text())
    print(json.dumps(WORK[asked["kind"]](asked)))
