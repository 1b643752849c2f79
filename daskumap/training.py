"""What a script calls to train a network on the graph of a finished run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from daskumap.clusters import choose
from daskumap.encoder import Encoder
from daskumap.encoder_params import NAMES, EncoderParams
from daskumap.engine.clusters import make_engine
from daskumap.engine.machine import parse_memory
from daskumap.errors import ParameterError
from daskumap.params import Params, explicit_with
from daskumap.report.progress import Progress, choose_progress
from daskumap.request import Request
from daskumap.run import Run
from daskumap.runtime.networks import kind_of_device
from daskumap.session import fit_request
from daskumap.store import schema
from daskumap.store.model import Model
from daskumap.store.places import find_place
from daskumap.store.run import RunStore
from daskumap.train_request import OF_FIT, make_train_request


@explicit_with((EncoderParams, NAMES.__contains__), (Params, OF_FIT.__contains__))
def train(
    run: Run | str | Path,
    out: Any = None,
    *,
    labels: Any = None,
    landmarks: Any = None,
    start: Any = None,
    client: Any = None,
    cluster: Any = None,
    memory: str | int | None = None,
    threads: int | None = None,
    progress: bool | Progress = True,
    restart: bool = False,
    take_over: bool = False,
    trust_input: bool = False,
    **params: Any,
) -> Run:
    """Train a network that maps rows, on the graph of a finished run: Parametric UMAP, out of core.

    The result is a run of its own: its `embedding` is where the network maps the rows that were fitted, and
    `report`, `resume` and `verify` are those of any run. One seed gives one network, to the bit, for any
    number of workers, threads, chunks and partitions, through kills and resumes.

    Parameters
    ----------
    run
        A run, or its path or URL, fitted with keep="graph" (the default) or "all". Its input has to be where
        it was, unless it came from memory: then the run has it. transform_mode="graph" is enough, but for
        `warm_start`.
    out
        Path or URL of the run store of the training, or a Zarr store. An unfinished training on the same run
        that is there goes on. None: in memory or a temporary folder, as of `fit`.
    labels
        (n,) integers or names, one a row, -1 where there is none, or the name of one of `Run.columns`, as
        of a column of the obs of an AnnData: a head for classes is trained with the
        encoder, with the weight `label_weight`.
    landmarks
        (n, n_components) where rows are to lie on the map, NaN for rows that are free; `label_weight` and
        `landmark_weight` weigh the mean over the known rows of a batch. What weighs 0 is not looked at.
    start
        A trained run or a saved model, or where one is, from which the training goes on: its encoder, and
        the decoder and the classes that both have. None: it starts afresh.
    client, cluster, memory, threads, progress, restart, take_over, trust_input
        As in `fit`; `restart` is about the training that is in `out`. The rows that take part are in the
        memory of each worker that trains: R (4 p + 16 deg) bytes for R rows of p values with deg edges. What
        cannot fit is refused before it starts, with the largest `window_rows` that does.
    **params
        `hidden`, the units of each hidden layer. `encoder`: "mlp", or a torch module; `decoder`: True, or a
        module, for the way back. `loss`: "logistic", as umap-learn computes it, or "exact", as it is written.
        `batch_edges` edges a step (1,000), each pushed from `negative_sample_rate` others; `steps`, 6,000
        whatever the number of rows. `encoder_learning_rate`, which falls linearly.
        `input_axes`: on how many main axes the network sees rows while it is trained (64; None: all columns);
        the finished one takes rows as they are. `encoder_rows`: of more rows (2,000,000) that many are
        trained on, whole runs of 512 consecutive vertices. `window_rows`: rows in memory at a time, replaced
        every 40 steps (None: all); they cost quality, since edges that leave a window are not there.
        `warm_start`: the share of the steps, the first ones, that regress to the run's own map (None: 0, or
        .5 where not all rows are in memory).
        `replicas` networks are trained at a time, one a worker, and averaged every `average_every` steps.
        `autoencoder_weight` weighs the error of the decoder for the encoder; at 0 the decoder learns beside
        it. `reconstruction`: "mse", or "bce" for values in [0, 1]. `global_weight` weighs the correlation of
        distances in the data and on the map. `device` of a module. `checkpoint_steps`: steps of a segment.
        And of `fit`: `n_components`, `min_dist`, `spread`, `a`, `b`, `repulsion_strength`, `alpha`,
        `negative_sample_rate`, `random_state`, `report`, `keep`. What is not given is that of the run, but
        for `report`, which is True.

    Returns
    -------
    Run
        Its `history` has the mean of each term of the loss by segment.

    Raises
    ------
    SourceError, ParameterError, PlanError, RunMismatchError, StoreError, TaskError, ClusterError
        Each says what was seen, what is allowed and what to do.

    References
    ----------
    Sainburg, McInnes, Gentner (2021), Parametric UMAP Embeddings for Representation and Semisupervised
    Learning.
    """
    shown, where = choose_progress(progress), choose(client, cluster)
    for name, value in (("restart", restart), ("trust_input", trust_input)):
        if not isinstance(value, bool):
            raise ParameterError(f"{name} is {value!r}; it must be True or False.")
    fitted = run if isinstance(run, Run) else Run(RunStore.open(find_place(run), mode="r"))
    begun = None if start is None else _model_of(start)
    request = make_train_request(fitted.model(), params, fitted.named(labels), landmarks, begun)
    engine = make_engine(where, parse_memory(memory), threads, request.source.shape[0])
    try:
        fitted.refuse_out_of_reach(engine)
        request = dataclasses.replace(request, device=kind_of_device(engine, request.params))
        store = fit_request(request, out, engine, shown, restart, take_over, trust_input)
    finally:
        engine.close()
    return trained_run(store, request)


def _model_of(start: Any) -> Model:
    """Return the model of whatever the caller names."""
    if isinstance(start, Model):
        return start
    encoder = start.encoder if isinstance(start, Run) else start
    return encoder.model if isinstance(encoder, Encoder) else Encoder.open(encoder).model


def trained_run(store: RunStore, request: Request) -> Run:
    """Return the run of a training; rows in memory that are in no run store stay with it."""
    held = request.params.keep != "embedding" and not store.has(schema.SOURCE.name)
    return Run(store, request.params, request.source if held else None)
