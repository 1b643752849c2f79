"""Where a column of colours or classes is: beside the rows in Zarr, in a table, of which it alone is read."""

import numpy as np
import pandas as pd
import pytest
import zarr
from zarr.storage import ZipStore

from daskumap.errors import ParameterError
from daskumap.plot.columns import read_column

NUMBERS = np.arange(300) % 7


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_an_array_beside_the_rows(tmp_path, zarr_format):
    group = zarr.create_group(tmp_path / "rows.zarr", zarr_format=zarr_format)
    group.create_array("X", data=np.ones((300, 8), np.float32))
    group.create_array("batch", data=NUMBERS)
    group.create_array("batch_of_texts", data=NUMBERS.astype("U4"))
    np.testing.assert_array_equal(read_column(f"{tmp_path}/rows.zarr/batch", 300), NUMBERS)
    assert read_column(tmp_path / "rows.zarr/batch_of_texts", 300).tolist() == NUMBERS.astype("U4").tolist()
    with pytest.raises(ParameterError, match="Name one of its arrays: it has X, batch"):
        read_column(tmp_path / "rows.zarr", 300)
    with pytest.raises(ParameterError, match=r"has the shape \(300, 8\); one value for each of 300 rows"):
        read_column(tmp_path / "rows.zarr/X", 300)


def test_an_array_in_a_zip_file(tmp_path):
    with ZipStore(tmp_path / "rows.zarr.zip", mode="w") as store:
        zarr.create_group(store).create_array("batch", data=NUMBERS)
    np.testing.assert_array_equal(read_column(f"{tmp_path}/rows.zarr.zip/batch", 300), NUMBERS)


def test_of_a_table_one_column_is_read(tmp_path, monkeypatch):
    frame = pd.DataFrame(
        {"kind": NUMBERS, "vector": list(np.ones((300, 8)))}, index=[f"r{n}" for n in NUMBERS]
    )
    frame.rename_axis("name").to_parquet(tmp_path / "rows.parquet")
    asked, read = [], pd.read_parquet
    monkeypatch.setattr(pd, "read_parquet", lambda path, **how: asked.append(how) or read(path, **how))
    np.testing.assert_array_equal(read_column(f"{tmp_path}/rows.parquet:kind", 300), NUMBERS)
    assert asked == [{"columns": ["kind"]}]
    assert read_column(f"{tmp_path}/rows.parquet:name", 300)[3] == "r3"
    with pytest.raises(ParameterError, match=r"has the columns kind, vector, name. Name one"):
        read_column(f"{tmp_path}/rows.parquet:none", 300)
