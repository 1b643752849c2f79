"""Names that are not ours get a hint, wherever a user may write them."""

import numpy as np
import pytest

import daskumap
from daskumap import UMAP, ParametricUMAP
from daskumap.cli.main import main
from daskumap.errors import ParameterError
from daskumap.hints import hint, nearest
from daskumap.jobs.reading import read_job
from daskumap.plot import points

X = np.zeros((20, 3), np.float32)

# What is written -> what is meant.
OF_A_FIT = {
    "n_neighbours": "n_neighbors",
    "neighbors": "n_neighbors",
    "perplexity": "n_neighbors",
    "min_distance": "min_dist",
    "mindist": "min_dist",
    "nepochs": "n_epochs",
    "n_iter": "n_epochs",
    "epochs": "n_epochs",
    "seed": "random_state",
    "n_dims": "n_components",
    "metric_params": "metric_kwds",
    "lr": "learning_rate",
    "negative_samples": "negative_sample_rate",
    "initialization": "init",
    "knn_graph": "precomputed_knn",
}
CALLS = {
    "fit": lambda **given: daskumap.fit(X, **given),
    "plan": lambda **given: daskumap.plan(X, **given),
    "UMAP": lambda **given: UMAP(**given),
    "set_params": lambda **given: UMAP().set_params(**given),
    "ParametricUMAP": lambda **given: ParametricUMAP(**given),
    "set_params of ParametricUMAP": lambda **given: ParametricUMAP().set_params(**given),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("word", ["n_neighbours", "min_distance", "metric_params", "seed"])
def test_names_of_other_programs_get_a_hint(call, word):
    with pytest.raises(ParameterError, match=rf"'{word}'.* Did you mean '{OF_A_FIT[word]}'\?"):
        call(**{word: 5})


@pytest.mark.parametrize("word", OF_A_FIT)
def test_each_name_is_known(word):
    with pytest.raises(ParameterError, match=rf"Did you mean '{OF_A_FIT[word]}'\?"):
        daskumap.fit(X, **{word: 5})


@pytest.mark.parametrize(
    ("call", "word", "meant"),
    [
        (lambda **given: daskumap.fit(X, **given), "verbose", "progress"),
        (lambda **given: daskumap.fit(X, **given), "n_jobs", "threads"),
        (lambda **given: UMAP(**given), "threads", "n_jobs"),
        (lambda **given: daskumap.transform("run", X, **given), "n_jobs", "threads"),
        (lambda **given: daskumap.transform("run", X, **given), "tread", "threads"),
        (lambda **given: daskumap.inverse_transform("run", X, **given), "verbose", "progress"),
        (lambda **given: daskumap.predict("run", X, **given), "memory_limit", "memory"),
        (lambda **given: daskumap.resume("run", **given), "scheduler", "client"),
        (lambda **given: daskumap.verify("run", **given), "repare", "repair"),
        (lambda **given: daskumap.clean("run", **given), "keeps", "keep"),
        (lambda **given: daskumap.stability([X, X], **given), "n_neighbours", "n_neighbors"),
        (lambda **given: daskumap.diagnose("run", **given), "embeding", "embedding"),
        (lambda **given: daskumap.evaluate(X, X, **given), "n_neighbours", "n_neighbors"),
        (lambda **given: daskumap.run_job({}, **given), "take_ower", "take_over"),
        (lambda **given: daskumap.train("run", **given), "batch_edge", "batch_edges"),
        (lambda **given: daskumap.source(X, **given), "column", "columns"),
        (lambda **given: points(X, **given), "colour", "color"),
        (lambda **given: points(X, **given), "labels", "color"),
    ],
)
def test_every_call_has_hints(call, word, meant):
    with pytest.raises(ParameterError, match=rf"Did you mean '{meant}'\?"):
        call(**{word: 1})


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("densmap", "Leave densmap out: densMAP is not in this version"),
        ("y", "Leave y out: supervision"),
        ("build_algo", "Leave build_algo out: it is about a GPU"),
        ("transform_seed", "the seed of the fit"),
    ],
)
def test_what_has_no_counterpart_is_said_to_have_none(word, why):
    with pytest.raises(ParameterError, match=why) as caught:
        daskumap.fit(X, **{word: 1})
    assert "Did you mean" not in str(caught.value)


def test_a_wrong_name_changes_nothing():
    model = UMAP()
    with pytest.raises(ParameterError):
        model.set_params(n_neighbors=7, n_neighbours=9)
    assert model.n_neighbors == 15
    assert model.set_params(n_neighbors=7) is model


@pytest.mark.parametrize(
    ("job", "said"),
    [
        ({"parameters": {"n_neighbours": 5}}, "Did you mean 'n_neighbors'"),
        ({"parameters": {"epochs": 5}}, "Did you mean 'n_epochs'"),
        ({"n_neighbors": 5}, "n_neighbors: no such key; did you mean 'n_neighbors' under parameters"),
        ({"min_distance": 5}, "did you mean 'min_dist' under parameters"),
        ({"thread": 5}, "did you mean 'threads'"),
        ({"scheduler": "a"}, "no such key; known are"),
    ],
)
def test_a_job_has_hints(job, said):
    with pytest.raises(ParameterError, match=said):
        read_job({"source": "x.zarr", "run": "y.zarr", **job})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fit", "a.zarr", "b.zarr", "--n-neighbours", "3"], "Did you mean --n-neighbors?"),
        (["fit", "a.zarr", "b.zarr", "--epochs", "3"], "Did you mean --n-epochs?"),
        (["fit", "a.zarr", "b.zarr", "--random-state", "3"], "Did you mean --seed?"),
        (["plan", "a.zarr", "--perplexity", "3"], "Did you mean --n-neighbors?"),
        (["transform", "a.zarr", "b.zarr", "c.zarr", "--n-jobs", "3"], "Did you mean --threads?"),
    ],
)
def test_an_option_has_hints(arguments, said, capsys):
    with pytest.raises(SystemExit):
        main(arguments)
    assert said in capsys.readouterr().err


def test_settings_have_hints(tmp_path, capsys):
    np.save(tmp_path / "x.npy", X)
    rows, run = str(tmp_path / "x.npy"), str(tmp_path / "run.zarr")
    assert main(["fit", rows, run, "--set", "min_distance=.3"]) == 2
    assert "Did you mean 'min_dist'?" in capsys.readouterr().err
    assert main(["fit", rows, run, "--source-option", "column=a"]) == 2
    assert "Did you mean 'columns'?" in capsys.readouterr().err
    assert main(["plan", rows, "--source-option", "kind=np"]) == 2
    assert "kinds of files are" in capsys.readouterr().err
    assert not (tmp_path / "run.zarr").exists()


def test_what_nothing_is_near_has_no_hint():
    assert nearest("xyz", ["n_neighbors", "metric"]) == []
    assert hint(["xyz"], ["n_neighbors"]) == ""
    assert nearest("k", ["metric"]) == []
