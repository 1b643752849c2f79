"""The estimator in memory: what it has of umap-learn's, and what scikit-learn does with it."""

import inspect
import io
import pickle
import warnings
from pathlib import Path
from types import SimpleNamespace

import joblib
import numpy as np
import pytest
from scipy.sparse import coo_matrix, csc_array, csr_matrix
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import validation
from stored import umap_learn_fits as stored

import daskumap
from daskumap import UMAP
from daskumap.errors import ParameterError, SourceError, StoreError
from daskumap.testing.datasets import uneven_clusters

QUICK = {"n_epochs": 3, "random_state": 1}


@pytest.fixture
def fitted(small):
    return UMAP(**QUICK).fit(small)


def refuse_warnings(function):
    """Call with each warning as an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return function()


# Beside umap-learn.


def test_names_order_and_defaults_are_those_of_umap_learn():
    import umap

    theirs = inspect.signature(umap.UMAP).parameters
    ours = inspect.signature(UMAP).parameters
    assert list(ours)[: len(theirs)] == list(theirs)
    assert {name: one.default for name, one in theirs.items()} == {
        name: ours[name].default for name in theirs
    }
    assert {one.kind for one in ours.values()} == {
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.KEYWORD_ONLY,
    }


class Theirs(SimpleNamespace):
    """What tests/stored/umap_learn_fits.py made: a graph of umap-learn's, its bandwidths, and more."""

    def __init__(self, found, name):
        parts = {key.removeprefix(f"{name}_"): found[key] for key in found if key.startswith(f"{name}_")}
        places = (parts.pop("data"), parts.pop("indices"), parts.pop("indptr"))
        super().__init__(graph=csr_matrix(places, shape=(len(parts["rhos"]),) * 2), **parts)


@pytest.fixture(scope="module")
def theirs():
    """What umap-learn makes of some rows, by name."""
    with np.load(Path(stored.__file__).with_suffix(".npz")) as found:
        return {
            name.removesuffix("_rhos"): Theirs(found, name.removesuffix("_rhos"))
            for name in found
            if name.endswith("_rhos")
        }


@pytest.mark.parametrize("number", range(len(stored.OPTIONS)), ids=lambda number: str(stored.OPTIONS[number]))
def test_the_graph_is_that_of_umap_learn(small, theirs, number):
    """Of the same neighbours, as far as float32 goes: the last bits depend on the kind of CPU."""
    rows, options, expected = small[: stored.GRAPH_ROWS], stored.OPTIONS[number], theirs[f"graph{number}"]
    ours = UMAP(**QUICK, **options).fit(rows)
    assert abs(ours.graph_ - expected.graph).max() < 2e-5
    given = UMAP(precomputed_knn=(ours._knn_indices, ours._knn_dists), **QUICK, **options).fit(rows)
    assert abs(given.graph_ - expected.graph).max() < 2e-5
    np.testing.assert_allclose(ours._rhos, expected.rhos, rtol=1e-5)
    np.testing.assert_allclose(ours._sigmas, expected.sigmas, rtol=2e-5)


def test_what_a_fit_of_umap_learn_leaves(small, theirs):
    expected, ours = theirs["plain"], UMAP(**QUICK).fit(small[: stored.FIT_ROWS])
    assert type(ours.graph_).__name__ == expected.kind
    assert ours.graph_.dtype == expected.graph.dtype
    assert ours.graph_.has_canonical_format
    assert abs(ours.graph_ - expected.graph).max() < 1e-5
    np.testing.assert_allclose(ours._rhos, expected.rhos, rtol=1e-5)
    np.testing.assert_allclose(ours._sigmas, expected.sigmas, rtol=1e-4)
    assert (ours._a, ours._b) == pytest.approx(tuple(expected.curve), rel=1e-6)


def test_the_curve_that_is_given(small):
    model = UMAP(a=1.5, b=0.9, **QUICK).fit(small)
    assert (model._a, model._b) == (1.5, 0.9)


def test_copies_of_a_row_have_one_row_of_the_graph(small, theirs):
    expected, ours = theirs["unique"], UMAP(unique=True, **QUICK).fit(stored.with_copies(small))
    assert ours.embedding_.shape == (200, 2)
    assert ours.graph_.shape == (150, 150)
    inverse, back = ours._unique_inverse_, expected.inverse
    assert abs(ours.graph_[inverse][:, inverse] - expected.graph[back][:, back]).max() < 1e-5
    np.testing.assert_allclose(ours._rhos[inverse], expected.rhos[back], rtol=1e-5, atol=1e-6)
    # Places are those of first occurrence.
    _, first = np.unique(inverse, return_index=True)
    assert (np.diff(first) > 0).all()


def test_a_row_that_loses_neighbours_keeps_its_weights(small, theirs):
    """In umap-learn its bandwidth is infinite, and all its edges weigh 1."""
    expected = theirs["cut"]
    ours = UMAP(disconnection_distance=stored.CUTOFF, **QUICK).fit(small[: stored.FIT_ROWS])
    assert ((ours.graph_ > 0) != (expected.graph > 0)).nnz == 0
    wrong = np.isinf(expected.sigmas)
    assert 0 < wrong.sum() < stored.FIT_ROWS
    assert np.isfinite(ours._sigmas).all()
    np.testing.assert_allclose(ours._sigmas[~wrong], expected.sigmas[~wrong], rtol=1e-4)
    np.testing.assert_array_equal(np.isnan(ours.embedding_[:, 0]), np.diff(ours.graph_.indptr) == 0)


def test_bandwidths_are_in_the_unit_of_the_rows(small):
    """Rows that float32 cannot hold are searched scaled."""
    plain = UMAP(**QUICK).fit(small)
    large = UMAP(**QUICK).fit(small.astype(np.float64) * 2.0**200)
    for name in ("_rhos", "_sigmas"):
        expected = getattr(plain, name).astype(np.float64) * 2.0**200
        np.testing.assert_allclose(getattr(large, name), expected, rtol=1e-3)


@pytest.mark.parametrize("rows", [3, 4, 15])
def test_few_rows_have_fewer_neighbours(small, rows):
    model = UMAP(np.int64(15), **QUICK)
    with pytest.warns(UserWarning, match=rf"^n_neighbors is larger .*\(15 of {rows} rows\); truncating"):
        model.fit(small[:rows])
    assert np.isfinite(model.embedding_).all()
    assert model.embedding_.shape == (rows, 2)
    assert (model.n_neighbors, model._n_neighbors) == (15, rows - 1)


def test_as_many_rows_as_it_takes(small):
    refuse_warnings(lambda: UMAP(**QUICK).fit(small[:16]))


def test_one_row_and_two(small):
    model = UMAP(n_components=3).fit(small[:1])
    assert model.embedding_.tolist() == [[0, 0, 0]]
    assert not hasattr(model, "graph_")
    with (
        pytest.warns(UserWarning, match="truncating"),
        pytest.raises(SourceError, match="has 2 rows; at least 3"),
    ):
        UMAP().fit(small[:2])


# What scikit-learn does with it.


def test_what_a_fit_leaves(small):
    model = UMAP(n_components=3, **QUICK)
    for name in ("graph_", "embedding_", "_rhos", "n_features_in_"):
        assert not hasattr(model, name)
    with pytest.raises(NotFittedError, match="not fitted yet"):
        model.graph_  # noqa: B018, a property that raises
    assert model.fit(small) is model
    assert type(model.embedding_) is np.ndarray
    assert (model.embedding_.dtype, model.embedding_.shape) == (np.float32, (400, 3))
    assert model.n_features_in_ == 8
    assert model.get_feature_names_out().tolist() == ["umap0", "umap1", "umap2"]
    assert model.run_.finished
    np.testing.assert_array_equal(model.run_.embedding[:], model.embedding_)


def test_fit_transform_returns_the_map(small, fitted):
    assert np.array_equal(UMAP(**QUICK).fit_transform(small), fitted.embedding_)


def test_the_map_is_that_of_fit(small, fitted):
    run = daskumap.fit(small, init="spectral", report=False, progress=False, **QUICK)
    assert np.array_equal(fitted.embedding_, run.embedding[:])


def test_a_second_fit_forgets_the_first(small, fitted):
    fitted.fit(small[:100, :5])
    assert fitted.embedding_.shape == (100, 2)
    assert fitted.graph_.shape == (100, 100)
    assert fitted.n_features_in_ == 5


def test_a_clone_has_the_parameters_and_no_map(fitted):
    fitted.set_params(precomputed_knn=(None, None, None), keep="all", n_jobs=2)
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params()
    assert not hasattr(copy, "embedding_")


def test_a_fit_changes_no_parameter(small):
    """umap-learn writes n_jobs, tqdm_kwds and others over what it was given."""
    given = {"metric": "cosine", "n_jobs": 2, "random_state": 3, "n_epochs": 3, "n_components": np.int64(2)}
    model = UMAP(**given)
    before = model.get_params()
    model.fit(small)
    assert model.get_params() == before


def test_the_last_step_of_a_pipeline(small):
    found = make_pipeline(StandardScaler(), UMAP(**QUICK)).fit_transform(small)
    scaled = UMAP(**QUICK).fit_transform(StandardScaler().fit_transform(small))
    assert np.array_equal(found, scaled)


def spread_of(model, X, y=None):
    return float(model.embedding_.std())


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_grid_search(small, n_jobs):
    search = GridSearchCV(
        UMAP(**QUICK),
        {"n_neighbors": [5, np.int64(10)], "min_dist": [0.1]},
        scoring=spread_of,
        cv=2,
        n_jobs=n_jobs,
    )
    with joblib.parallel_backend("threading"):
        search.fit(small)
    assert search.best_estimator_.graph_.shape == (400, 400)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


class Frame(np.ndarray):
    """Stands for a DataFrame, whose libraries the tests do not need."""

    columns = np.array(list("abcdefgh"), object)


def test_names_of_columns(small, fitted, monkeypatch):
    monkeypatch.setattr(validation, "_get_feature_names", lambda X: getattr(X, "columns", None))
    model = UMAP(**QUICK).fit(small.view(Frame))
    assert model.feature_names_in_.tolist() == list("abcdefgh")
    assert np.array_equal(model.embedding_, fitted.embedding_)
    assert not hasattr(model.fit(small), "feature_names_in_")


def test_the_default_output_is_an_array(small):
    assert type(UMAP(**QUICK).set_output(transform="default").fit_transform(small)) is np.ndarray


# Pickles.


class Watched(pickle.Unpickler):
    """Notes of which packages a pickle names anything."""

    def __init__(self, file):
        super().__init__(file)
        self.packages = set()

    def find_class(self, module, name):
        """Return what the pickle names."""
        self.packages.add(module.partition(".")[0])
        return super().find_class(module, name)


def test_a_pickle_has_the_run(fitted):
    data = pickle.dumps(fitted)
    again = pickle.loads(data)
    assert np.array_equal(again.embedding_, fitted.embedding_)
    assert abs(again.graph_ - fitted.graph_).max() == 0
    assert np.array_equal(again._sigmas, fitted._sigmas)
    assert again.get_params() == fitted.get_params()


def test_a_pickle_has_arrays_and_no_code(fitted):
    reader = Watched(io.BytesIO(pickle.dumps(fitted)))
    reader.load()
    assert reader.packages == {"daskumap", "numpy"}


def test_joblib_keeps_it(fitted):
    file = io.BytesIO()
    joblib.dump(fitted, file)
    file.seek(0)
    assert abs(joblib.load(file).graph_ - fitted.graph_).max() == 0


def test_a_pickle_of_a_run_on_disk_has_its_path(small, tmp_path):
    model = UMAP(run=tmp_path / "run.zarr", **QUICK).fit(small)
    data = pickle.dumps(model)
    assert len(data) < 10_000  # the map takes 3,200 of them, the run 200,000
    assert abs(pickle.loads(data).graph_ - model.graph_).max() == 0
    (tmp_path / "run.zarr").rename(tmp_path / "elsewhere.zarr")
    with pytest.raises(StoreError, match=r"There is no run store at .*run\.zarr"):
        pickle.loads(data)


# Parameters.


def test_a_typo(small):
    for call in (
        UMAP,
        lambda **words: daskumap.fit(small, **words),
        lambda **words: daskumap.plan(small, **words),
    ):
        with pytest.raises(
            ParameterError, match=r"^Unknown parameter 'n_neighbour'\. Did you mean 'n_neighbors'\?"
        ):
            call(n_neighbour=5)
    with pytest.raises(
        ParameterError, match=r"^Unknown parameter 'xyz'\. Allowed are a, alpha, angular_rp_forest,"
    ):
        UMAP(xyz=1)


OTHER = {
    "target_n_neighbors": 5,
    "target_metric": len,
    "target_metric_kwds": {},
    "target_weight": np.float64(0.7),
    "densmap": True,
    "dens_lambda": 1.0,
    "dens_frac": 0.5,
    "dens_var_shift": 0.2,
    "output_dens": True,
}


@pytest.mark.parametrize("name", OTHER)
def test_what_is_not_there_yet_is_refused(small, name):
    with pytest.raises(
        ParameterError, match=rf"^{name} is .*; allowed is .*, since .* is not in this version"
    ):
        UMAP(**{name: OTHER[name]}).fit(small)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_epochs", [1, -2]),
        ("n_epochs", 2.0),
        ("output_metric", "hellinger"),
        ("output_metric_kwds", 3),
        ("n_jobs", 0),
        ("n_jobs", -2),
        ("n_jobs", None),
        ("n_neighbors", 1),
        ("a", 1.0),
        ("keep", "nothing"),
        ("min_dist", 2.0),
    ],
)
def test_values_out_of_range_are_refused_by_fit(small, name, value):
    model = UMAP(**{name: value})
    with pytest.raises(ParameterError, match=name):
        model.fit(small)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda X: np.ma.masked_array(X, X > 1), SourceError, "masked array, and rows must be complete"),
        (lambda X: [X, X], SourceError, "it must be one array"),
        (lambda X: np.where(X > 1, np.nan, X), SourceError, "hold NaN or infinity"),
    ],
)
def test_rows_that_are_refused(small, change, error, message):
    with pytest.raises(error, match=message):
        UMAP(**QUICK).fit(change(small))


@pytest.mark.parametrize("kind", [csr_matrix, csc_array, coo_matrix])
def test_sparse_rows(small, kind):
    """Their map is that of the dense array; a pickle of a fit keeps them, and places new ones."""
    X = np.where(np.abs(small) < 2, 0, small)
    model, plain = UMAP(**QUICK).fit(kind(X)), UMAP(**QUICK).fit(X)
    assert np.array_equal(model.embedding_, plain.embedding_)
    assert model.n_features_in_ == 8
    again = pickle.loads(pickle.dumps(model))
    assert np.array_equal(again.transform(kind(X[:50])), model.embedding_[:50])
    assert np.array_equal(model.transform(kind(small[:9])), plain.transform(small[:9]))
    with pytest.raises(ValueError, match="3 features, but UMAP is expecting 8"):
        model.transform(kind(X[:, :3]))


def test_what_has_no_effect_is_said_once(small):
    unused = {"low_memory": False, "tqdm_kwds": {"desc": "x"}, "angular_rp_forest": True, "transform_seed": 1}
    model = UMAP(**unused, transform_queue_size=8, **QUICK)
    names = "low_memory, angular_rp_forest, tqdm_kwds, transform_queue_size, transform_seed"
    with pytest.warns(UserWarning, match=f"^{names}: without effect") as found:
        model.fit(small)
    assert len(found) == 1
    assert found[0].filename == __file__


def test_new_rows(small):
    """A fitted row gets its own place, and any row that of `daskumap.transform`, also from a pickle."""
    model = UMAP(**QUICK).fit(small[:300])
    assert np.array_equal(model.transform(small[:300]), model.embedding_)
    placed = model.transform(small[300:])
    assert placed.shape == (100, 2)
    assert placed.dtype == np.float32
    run = daskumap.fit(small[:300], init="spectral", report=False, progress=False, **QUICK)
    assert np.array_equal(placed, run.transform(small[300:], progress=False).embedding[:])
    assert np.array_equal(pickle.loads(pickle.dumps(model)).transform(small[300:][::-1]), placed[::-1])
    with pytest.raises(ValueError, match="3 features, but UMAP is expecting 8"):
        model.transform(small[:, :3])


def test_new_rows_in_the_middle_of_a_pipeline(small):
    """As columns of their own, and as features of a classifier."""
    labels = uneven_clusters(400, 8, 4, seed=1).labels()
    columns = ColumnTransformer([("map", UMAP(**QUICK), slice(0, 6))], remainder="passthrough")
    assert columns.fit(small[:300]).transform(small[300:]).shape == (100, 4)
    classifier = make_pipeline(StandardScaler(), UMAP(**QUICK), KNeighborsClassifier(5))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="y has no effect")
        assert classifier.fit(small[:300], labels[:300]).score(small[300:], labels[300:]) > 0.9


def test_labels_have_no_effect_and_it_says_so(small, fitted):
    with pytest.warns(UserWarning, match="^y has no effect: supervision is not in this version") as found:
        model = UMAP(**QUICK).fit(small, np.arange(400))
    assert len(found) == 1
    assert np.array_equal(model.embedding_, fitted.embedding_)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        UMAP(**QUICK).fit(small, np.arange(3))


def test_threads_change_no_bit(small, fitted):
    """umap-learn has one thread where it has a seed."""
    model = refuse_warnings(lambda: UMAP(n_jobs=2, **QUICK).fit(small))
    assert np.array_equal(model.embedding_, fitted.embedding_)


def test_the_seed_is_drawn_by_numpy(small):
    maps = []
    for seed in (7, 7, 8):
        np.random.seed(seed)  # noqa: NPY002, as users of umap-learn do
        maps.append(UMAP(n_epochs=2, init="random").fit_transform(small))
    assert np.array_equal(maps[0], maps[1])
    assert not np.array_equal(maps[0], maps[2])
    state = np.random.RandomState(3)
    first, second = (UMAP(n_epochs=2, random_state=state).fit_transform(small) for _ in range(2))
    assert not np.array_equal(first, second)


def test_verbose_says_how_far_it_is(small, capsys):
    UMAP(**QUICK).fit(small)
    assert capsys.readouterr() == ("", "")
    UMAP(verbose=True, **QUICK).fit(small)
    assert "layout" in capsys.readouterr().err


def test_a_run_that_keeps_its_map_alone_has_no_graph(small):
    model = UMAP(keep="embedding", **QUICK).fit(small)
    with pytest.raises(StoreError, match=r"has no graph, since it was fitted .* Fit with keep='graph'"):
        model.graph_  # noqa: B018, a property that raises


def test_signatures_say_all_parameters(small):
    names = set(inspect.signature(daskumap.params.Params).parameters) - daskumap.params.INNER
    for function in (daskumap.fit, daskumap.plan):
        found = inspect.signature(function).parameters
        assert names <= set(found)
        assert found["min_dist"].default == 0.1
        assert inspect.Parameter.VAR_KEYWORD not in {one.kind for one in found.values()}


def test_errors_are_importable():
    for name in daskumap.__all__:
        assert getattr(daskumap, name) is not None
    errors = {name for name, one in vars(daskumap.errors).items() if isinstance(one, type)}
    assert errors <= set(daskumap.__all__)
