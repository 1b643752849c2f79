"""The estimator on rows that are not in memory, and what it imports."""

import pickle
import subprocess
import sys

import dask.array
import numpy as np
import pytest
import zarr
from conftest import sha

import daskumap
from daskumap import UMAP
from daskumap.errors import RunMismatchError, SourceError, StoreError

QUICK = {"n_epochs": 3, "random_state": 1}
KINDS = {
    "path": lambda path: path,
    "text": str,
    "zarr": lambda path: zarr.open_array(path, mode="r"),
    "dask": lambda path: dask.array.from_zarr(str(path)) + 0,
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_map_is_read_when_it_is_asked_for(small, write, kind):
    model = UMAP(**QUICK)
    found = model.fit_transform(KINDS[kind](write(small)))
    assert type(found) is zarr.Array
    assert found is model.embedding_
    plain = UMAP(**QUICK).fit(small)
    assert sha(found) == sha(plain.embedding_)
    assert abs(model.graph_ - plain.graph_).max() == 0
    assert model.n_features_in_ == 8
    assert model.get_feature_names_out().tolist() == ["umap0", "umap1"]


def test_a_stored_run_goes_on_and_is_not_made_again(small, write, tmp_path):
    path = write(small)
    model = UMAP(run=tmp_path / "run.zarr", n_epochs=3).fit(path)  # a run of a drawn seed
    bits = sha(model.embedding_)
    times = {file: file.stat().st_mtime_ns for file in (tmp_path / "run.zarr").rglob("*") if file.is_file()}
    assert sha(model.fit(path).embedding_) == bits
    assert times == {file: file.stat().st_mtime_ns for file in times}
    with pytest.raises(RunMismatchError, match="n_epochs was 3 and is now 4"):
        model.set_params(n_epochs=4).fit(path)


def test_a_pickle_has_the_path(small, write, tmp_path):
    model = UMAP(run=tmp_path / "run.zarr", **QUICK).fit(write(small))
    data = pickle.dumps(model)
    assert len(data) < 5_000
    again = pickle.loads(data)
    assert sha(again.embedding_) == sha(model.embedding_)
    assert abs(again.graph_ - model.graph_).max() == 0


def test_a_temporary_run_is_in_no_pickle(small, write):
    with pytest.raises(StoreError, match=r"temporary folder, which a pickle .*run='run.zarr'"):
        pickle.dumps(UMAP(**QUICK).fit(write(small)))


def test_what_is_not_there(tmp_path):
    with pytest.raises(SourceError, match="nothing"):
        UMAP().fit(tmp_path / "nothing.zarr")


def test_on_a_cluster(small, write, tmp_path, client_1x2):
    path = write(small)
    model = UMAP(run=tmp_path / "run.zarr", client=client_1x2.scheduler.address, **QUICK).fit(path)
    assert sha(model.embedding_) == sha(UMAP(**QUICK).fit(small).embedding_)


IMPORTS = """
import sys
import daskumap
daskumap.fit, daskumap.ParameterError
assert "sklearn" not in sys.modules, "fit"
daskumap.UMAP
assert "sklearn" in sys.modules
assert not {"dask", "distributed", "umap", "pynndescent"} & set(sys.modules)
"""


def test_scikit_learn_is_loaded_for_the_estimator_alone():
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_package_says_what_it_has():
    assert set(daskumap.__all__) == set(dir(daskumap))
    assert np.all([hasattr(daskumap, name) for name in daskumap.__all__])
    with pytest.raises(AttributeError, match="no attribute 'Umap'"):
        daskumap.Umap  # noqa: B018, a name that is not there
