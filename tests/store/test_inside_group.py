"""A run store does not lie in somebody else's Zarr group, and its map gets there by lines that work."""

import numpy as np
import pytest
import zarr

import daskumap
from daskumap.errors import ParameterError

REFUSED = r"would lie in the Zarr node .*a\.zarr, .*Name a place outside"
OPTIONS = {"n_epochs": 10}


def write_anndata(where, data, version):
    """Write what matters here of an AnnData: its groups, and an embedding to start from."""
    group = zarr.open_group(where, mode="w", zarr_format=version)
    group.attrs["encoding-type"] = "anndata"
    group.create_group("obsm").create_array("X_pca", data=data)
    zarr.consolidate_metadata(where)


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
@pytest.mark.parametrize("version", [2, 3])
def test_a_map_gets_into_an_anndata(fit, small, tmp_path, version):
    where = str(tmp_path / "a.zarr")
    write_anndata(where, small, version)
    before = {path: path.read_bytes() for path in (tmp_path / "a.zarr").rglob("*") if path.is_file()}
    with pytest.raises(ParameterError, match=REFUSED) as refusal:
        fit(f"{where}/obsm/X_pca", f"{where}/obsm/X_umap", **OPTIONS)
    assert before == {path: path.read_bytes() for path in (tmp_path / "a.zarr").rglob("*") if path.is_file()}
    done = fit(f"{where}/obsm/X_pca", tmp_path / "run.zarr", **OPTIONS)
    assert f"daskumap.export(run, {where!r})" in str(refusal.value)
    daskumap.export(done, where)
    written = zarr.open_group(where, mode="r")["obsm/X_umap"]  # by consolidated metadata, as anndata reads
    np.testing.assert_array_equal(written[:], done.embedding[:])
    assert dict(written.attrs) == {"encoding-type": "array", "encoding-version": "0.2.0"}
    assert written.metadata.zarr_format == version


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
@pytest.mark.parametrize("inside", ["run.zarr", "deep/below/run.zarr"])
@pytest.mark.parametrize("version", [2, 3])
def test_at_any_depth_and_in_buckets(fit, small, tmp_path, version, inside):
    for where in (str(tmp_path / "a.zarr"), f"memory://{tmp_path.name}{version}/a.zarr"):
        write_anndata(where, small, version)
        with pytest.raises(ParameterError, match=REFUSED):
            fit(small, f"{where}/{inside}", **OPTIONS)
        with pytest.raises(ParameterError, match=REFUSED):
            fit(small, f"{where}/{inside}", restart=True, **OPTIONS)


def test_links_lead_into_a_group(fit, small, tmp_path):
    write_anndata(str(tmp_path / "a.zarr"), small, 2)
    (tmp_path / "link").symlink_to(tmp_path / "a.zarr" / "obsm")
    with pytest.raises(ParameterError, match=REFUSED):
        fit(small, tmp_path / "link" / "run.zarr", **OPTIONS)


def test_not_in_another_run_or_an_array(fit, small, write, tmp_path):
    fit(small, tmp_path / "run.zarr", **OPTIONS)
    for outside in (tmp_path / "run.zarr", write(small)):
        with pytest.raises(ParameterError, match=r"would lie in the Zarr node"):
            fit(small, outside / "other.zarr", **OPTIONS)
    assert daskumap.verify(tmp_path / "run.zarr") == {}
