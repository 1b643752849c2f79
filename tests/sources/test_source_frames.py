"""Frames: their numbers are the rows, their index and other columns the labels."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import daskumap
from daskumap.errors import SourceError
from daskumap.sources.find import find, source

ROWS = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
NAMES = [f"name {row}" for row in range(200)]
QUICK = {"random_state": 0, "n_epochs": 5, "report": False, "client": "sequential", "progress": False}


def pandas(**more):
    return pd.DataFrame({**{f"v{n}": ROWS[:, n] for n in range(4)}, **more})


MAKE = {
    "pandas": pandas,
    "polars": lambda **more: pl.from_pandas(pandas(**more)),
    "arrow": lambda **more: pa.Table.from_pandas(pandas(**more), preserve_index=False),
}


@pytest.mark.parametrize("kind", MAKE)
def test_numbers_are_rows(kind):
    found = find(MAKE[kind]())
    assert (found.shape, found.dtype, found.labels) == ((200, 4), np.float32, {})
    np.testing.assert_array_equal(found.read(3, 90), ROWS[3:90])
    assert found.identity() == find(ROWS).identity()


@pytest.mark.parametrize("kind", MAKE)
def test_columns_that_are_not_numbers_are_named(kind):
    frame = MAKE[kind](group=NAMES, n=np.arange(200))
    with pytest.raises(SourceError, match=r"columns that are not numbers: group \(.*columns=\['v0'"):
        find(frame)
    found = source(frame, columns="v?")
    np.testing.assert_array_equal(found.read(0, 200), ROWS)
    assert found.labels["group"][:2].tolist() == NAMES[:2]
    assert found.labels["n"][:].tolist() == list(range(200))
    assert list(source(frame, columns=["v3", "v0"], labels=["n"]).labels) == ["n"]
    np.testing.assert_array_equal(source(frame, columns=["v3", "v0"]).read(0, 5), ROWS[:5, [3, 0]])
    with pytest.raises(SourceError, match=r"no column 'w'. It has v0, v1"):
        source(frame, columns=["w"])


@pytest.mark.parametrize("kind", MAKE)
def test_a_column_of_lists(kind):
    frame = {
        "pandas": lambda: pd.DataFrame({"e": list(ROWS), "name": NAMES}),
        "polars": lambda: pl.DataFrame(
            {"e": ROWS.tolist(), "name": NAMES}, {"e": pl.List(pl.Float32), "name": pl.String}
        ),
        "arrow": lambda: pa.table({"e": pa.array(list(ROWS)), "name": NAMES}),
    }[kind]()
    found = find(frame)
    np.testing.assert_array_equal(found.read(0, 200), ROWS)
    assert found.labels["name"][:].tolist() == NAMES


def test_the_index_names_rows(tmp_path):
    frame = pandas().set_index(pd.Index(NAMES, name="id"))
    run = daskumap.fit(frame, tmp_path / "run.zarr", **QUICK)
    assert run.labels["id"][:].tolist() == NAMES
    np.testing.assert_array_equal(run.embedding[:], daskumap.fit(ROWS, **QUICK).embedding[:])
    daskumap.export(run, tmp_path / "map.parquet")
    assert pd.read_parquet(tmp_path / "map.parquet")["id"].tolist() == NAMES
    levels = pandas().set_index([pd.Index(NAMES), pd.Index([*range(199), 7], name="n")])
    assert list(find(levels).labels) == ["index_0", "n"]
    assert list(find(pandas().iloc[::-1]).labels) == ["index"]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (
            pandas(v4=pd.array([1, None] * 100, "Int64")),
            r"Row 1 of the DataFrame lacks a value in 'v4'",
        ),
        (pl.from_pandas(pandas()).with_columns(v4=pl.Series([1, None] * 100)), "Row 1 .*has a null"),
        (pd.DataFrame({"e": [[1, 2], [1]]}), r"Row 1 of column 'e' has the shape \(1,\), and row 0 has 2"),
        (pl.DataFrame({"e": [[1, 2], [1]]}), "Row 1 .* has 1 values, and row 0 has 2"),
        (pd.DataFrame({"a": ["x"]}), r"not numbers: a \(.*Allowed are float16"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "two columns of one name"),
        (pl.DataFrame({"a": pl.Series([], dtype=pl.Float32)}), "no rows"),
        (pandas().iloc[:0], "empty"),
    ],
)
def test_frames_that_are_no_rows(frame, message):
    with pytest.raises(SourceError, match=message):
        find(frame)


def test_types_of_pandas_own():
    frame = pandas().astype({"v0": "Float64", "v1": "float64[pyarrow]"})
    np.testing.assert_array_equal(find(frame).read(0, 200), ROWS)


@pytest.mark.parametrize("kind", MAKE)
def test_an_estimator_takes_frames(kind):
    model = daskumap.UMAP(n_epochs=5, random_state=0)
    if kind == "arrow":
        pytest.skip("scikit-learn takes no tables of Arrow")
    assert model.fit_transform(MAKE[kind]()).shape == (200, 2)


def test_a_sparse_frame():
    """Its types are no NumPy types, and have no size."""
    from scipy.sparse import random

    matrix = random(200, 6, 0.3, format="csr", dtype=np.float32, random_state=0)
    found = find(pd.DataFrame.sparse.from_spmatrix(matrix))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found.read(0, 200), matrix.toarray())


@pytest.mark.parametrize("empty", [pd.DataFrame(), pandas()[:0], pd.DataFrame(index=range(5))])
def test_an_empty_frame(empty):
    with pytest.raises(SourceError, match="The DataFrame is empty: its shape is"):
        find(empty)
