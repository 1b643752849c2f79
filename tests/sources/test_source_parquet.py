"""Parquet, written by those who write it, and whatever may be wrong with it."""

import json
import os

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import daskumap
from daskumap.errors import ParameterError, SourceError, SourceNotFoundError
from daskumap.sources import parquet as module
from daskumap.sources.find import find, open_spec, source

ROWS = np.random.default_rng(0).normal(size=(250, 6)).astype(np.float32)
WORDS = [f"text {row}" for row in range(250)]
QUICK = {"random_state": 0, "n_epochs": 5, "report": False, "client": "sequential", "progress": False}


def lists(rows=ROWS, kind=None):
    return pa.array(list(rows), kind or pa.list_(pa.float32()))


def write(path, groups=60, **columns):
    pq.write_table(pa.table(columns), path, row_group_size=groups)
    return path


@pytest.fixture(params=[None, pa.list_(pa.float32(), 6), pa.large_list(pa.float32())], ids=str)
def path(tmp_path, request):
    return write(tmp_path / "x.parquet", text=WORDS, embedding=lists(kind=request.param), n=range(250))


def test_a_column_of_lists(path):
    found = find(path)
    assert (found.shape, found.dtype, found.block_rows) == ((250, 6), np.float32, 60)
    for start, stop in [(0, 250), (0, 1), (59, 61), (100, 100), (61, 249), (249, 250)]:
        np.testing.assert_array_equal(found.read(start, stop), ROWS[start:stop])
    np.testing.assert_array_equal(np.concatenate(list(found.blocks())), ROWS)
    assert found.labels["text"][58:62].tolist() == WORDS[58:62]
    assert found.labels["n"][:].tolist() == list(range(250))
    again = open_spec(json.loads(json.dumps(found.spec())))
    assert again.identity() == found.identity()
    assert again.digest() == found.digest() == find(ROWS).digest()


def test_the_map_is_that_of_the_rows(path, tmp_path):
    run = daskumap.fit(path, tmp_path / "run.zarr", **QUICK)
    np.testing.assert_array_equal(run.embedding[:], daskumap.fit(ROWS, **QUICK).embedding[:])
    assert not (tmp_path / "run.zarr" / "input").exists()  # read in place
    assert run.labels["text"][:].tolist() == WORDS
    new = write(tmp_path / "new.parquet", embedding=lists(ROWS[:7]), text=WORDS[:7])
    placed = daskumap.transform(tmp_path / "run.zarr", new, client="sequential", progress=False)
    np.testing.assert_array_equal(placed.embedding[:], run.embedding[:7])
    daskumap.export(placed, tmp_path / "map.parquet")
    assert pd.read_parquet(tmp_path / "map.parquet")["text"].tolist() == WORDS[:7]


def test_large_row_groups_are_copied_once(path, tmp_path, monkeypatch):
    wanted = daskumap.fit(ROWS, **QUICK).embedding[:]
    monkeypatch.setattr(module, "GROUP_BYTES", 1000)
    monkeypatch.setattr(module, "BLOCK_BYTES", 17 * 24)
    found = find(path)
    assert found.spec() is None
    assert [len(block) for block in found.blocks()][:5] == [17, 17, 17, 9, 17]
    np.testing.assert_array_equal(np.concatenate(list(found.blocks())), ROWS)
    run = daskumap.fit(path, tmp_path / "run.zarr", **QUICK)
    np.testing.assert_array_equal(run.embedding[:], wanted)
    assert daskumap.resume(tmp_path / "run.zarr", client="sequential", progress=False).finished


def test_columns_of_numbers(tmp_path):
    frame = pd.DataFrame(ROWS, columns=list("abcdef"), index=pd.Index(WORDS, name="id"))
    frame.to_parquet(tmp_path / "x.parquet")
    found = find(tmp_path / "x.parquet")
    np.testing.assert_array_equal(found.read(0, 250), ROWS)
    assert found.labels["id"][:].tolist() == WORDS
    frame["group"] = "g"
    frame.reset_index(drop=True).set_index(pd.Index([7, *range(249)])).to_parquet(tmp_path / "y.parquet")
    with pytest.raises(SourceError, match=r"not numbers: group .*columns=\['a', 'b', 'c'\]; \* and \?"):
        find(tmp_path / "y.parquet")
    some = source(tmp_path / "y.parquet", columns=["b", "[ac]"])
    np.testing.assert_array_equal(some.read(0, 250), ROWS[:, [1, 0, 2]])
    assert some.labels["index"][:3].tolist() == [7, 0, 1]
    assert set(some.labels) == {"d", "e", "f", "group", "index"}
    assert list(source(tmp_path / "y.parquet", columns="?", labels=["group"]).labels) == ["group"]
    assert source(tmp_path / "y.parquet", columns="?", labels=[]).labels == {}


def test_types_meet_in_the_widest(tmp_path):
    path = write(
        tmp_path / "x.parquet", a=pa.array([1, 2], pa.int8()), b=pa.array([0.5, 1.5]), c=[True, False]
    )
    assert find(path).dtype == np.float64
    np.testing.assert_array_equal(find(path).read(0, 2), [[1, 0.5, 1], [2, 1.5, 0]])


def test_a_folder_is_its_files_in_order(tmp_path):
    folder = tmp_path / "data"
    for part, rows in [
        ("part=b", slice(100, 250)),
        ("part=a", slice(0, 100)),
        ("_c", slice(0, 9)),
        (".d", slice(0, 9)),
    ]:
        (folder / part).mkdir(parents=True)
        write(folder / part / "0.parquet", embedding=lists(ROWS[rows]), text=WORDS[rows])
    found = find(folder)
    np.testing.assert_array_equal(found.read(0, 250), ROWS)
    np.testing.assert_array_equal(found.read(90, 110), ROWS[90:110])
    assert found.labels["text"][98:102].tolist() == WORDS[98:102]
    write(folder / "part=b" / "1.parquet", embedding=lists(ROWS[:9], pa.list_(pa.float64())), text=WORDS[:9])
    with pytest.raises(SourceError, match=r"1.parquet has other columns.*embedding is list<element: double>"):
        find(folder)


def test_urls_are_read_too(tmp_path, path):
    import fsspec

    with fsspec.open("memory://bucket/x.parquet", "wb") as file:
        file.write(path.read_bytes())
    found = find("memory://bucket/x.parquet")
    np.testing.assert_array_equal(found.read(50, 70), ROWS[50:70])
    assert found.spec()["path"] == "memory://bucket/x.parquet"
    with pytest.raises(SourceNotFoundError, match=r"nothing at memory://bucket/y\.parquet"):
        find("memory://bucket/y.parquet")


def ragged(rows):
    return pa.array([list(row[: 5 if number == 70 else 6]) for number, row in enumerate(rows)])


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([*list(ROWS[:70]), None, *list(ROWS[71:])]), "Row 70 of .*x.parquet has a null"),
        (pa.array([*list(ROWS[:70]), [None] * 6, *list(ROWS[71:])]), "Row 70 of .*x.parquet has a null"),
        (ragged(ROWS), "Row 70 of .*x.parquet has 5 values, and row 0 has 6"),
    ],
)
def test_rows_that_are_not_complete(tmp_path, column, message):
    path = write(tmp_path / "x.parquet", embedding=column)
    for read in (lambda: find(path).read(0, 250), lambda: find(path).digest()):
        with pytest.raises(SourceError, match=message):
            read()
    with pytest.raises(SourceError, match=message):
        daskumap.fit(path, **QUICK)


def test_labels_that_lack_are_missing(tmp_path):
    path = write(
        tmp_path / "x.parquet",
        embedding=lists(ROWS[:3]),
        text=["a", None, "c"],
        n=[1, None, 3],
        good=[True, None, False],
        time=pa.array([0, None, 2], pa.timestamp("ms", tz="UTC")),
        code=pa.array(["x", "y", "x"]).dictionary_encode(),
        nested=[{"a": 1}] * 3,
    )
    run = find(path).labels
    assert "nested" not in run
    assert run["text"][:].tolist() == ["a", None, "c"]
    assert run["n"].dtype == "float64"
    np.testing.assert_array_equal(run["n"][:], [1, np.nan, 3])
    assert run["good"][:].tolist() == ["True", None, "False"]
    assert np.isnat(run["time"][:]).tolist() == [False, True, False]
    assert run["code"][:].tolist() == ["x", "y", "x"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": WORDS}, r"no column of numbers or of lists of numbers. It has text \(string\)"),
        ({"a": lists(), "b": lists()}, r"2 columns of lists: a, b. Choose one, such as columns='a'"),
        ({"a": pa.array([[["x"]]])}, "no column of numbers"),
    ],
)
def test_columns_that_leave_a_choice(tmp_path, columns, message):
    with pytest.raises(SourceError, match=message):
        find(write(tmp_path / "x.parquet", **columns))


def test_options_that_do_not_fit(path):
    for options, message in [
        ({"columns": "embeding"}, r"no column 'embeding'. It has text, embedding, n"),
        ({"columns": "text"}, r"'text' holds string; allowed are float16"),
        ({"columns": ["n", "embedding"]}, "lists and numbers mixed"),
        ({"labels": "embedding"}, "labels are texts, numbers or times"),
        ({"columns": []}, "no columns are chosen"),
    ]:
        with pytest.raises(SourceError, match=message):
            source(path, **options)
    with pytest.raises(
        ParameterError, match=r"read as parquet, .*dataset. Its options are kind, rows, columns, labels"
    ):
        source(path, dataset="x")


def test_files_that_are_none(tmp_path, path):
    (tmp_path / "empty.parquet").touch()
    with pytest.raises(SourceError, match=r"empty.parquet is no parquet file, or a damaged one"):
        find(tmp_path / "empty.parquet")
    with pytest.raises(SourceNotFoundError, match=r"nothing at .*y.parquet. Near it.*x.parquet"):
        find(tmp_path / "y.parquet")
    with pytest.raises(SourceError, match="has no rows"):
        find(write(tmp_path / "none.parquet", embedding=pa.array([], pa.list_(pa.float32()))))
    with pytest.raises(SourceError, match=r"Row 0 .* has no values"):
        find(write(tmp_path / "null.parquet", embedding=pa.array([None, [1.0]])))


def test_a_damaged_row_group_is_named(tmp_path):
    path = write(tmp_path / "x.parquet", embedding=lists())
    found = find(path)
    offset = pq.read_metadata(path).row_group(2).column(0).data_page_offset
    content = bytearray(path.read_bytes())
    content[offset : offset + 40] = b"\xff" * 40
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"x.parquet was written anew since it was opened"):
        found.read(130, 140)
    with pytest.raises(SourceError, match=r"Rows 120 to 180 .*row group 2 of .*x.parquet fails with"):
        find(path).read(130, 140)


def test_without_pyarrow(path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(daskumap.DependencyError, match=r"A parquet file needs pyarrow .*daskumap\[tables\]"):
        find(path)


def test_what_is_not_known_stays_zarr(tmp_path):
    import zarr

    zarr.create_array(tmp_path / "x.parquet", data=ROWS)
    assert find(tmp_path / "x.parquet").spec()["kind"] == "zarr"
    os.mkdir(tmp_path / "empty")
    with pytest.raises(SourceError, match="is a folder, but no Zarr"):
        find(tmp_path / "empty")
