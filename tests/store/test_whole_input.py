"""The whole input is known: what changed anywhere in it is no longer what a run was made of."""

import shutil

import numpy as np
import pytest
import zarr
from conftest import sha

import daskumap
from daskumap.cli.main import main
from daskumap.errors import DaskumapError, RunMismatchError, TaskError
from daskumap.testing.faults import FailingEngine, Fault

OPTIONS = {"n_epochs": 20, "checkpoint_every": 5}
OTHER = r"another input: values differ in 2 of 4 blocks of rows, first in rows 100 to 199"


@pytest.fixture(scope="module")
def whole(small):
    """The digest of the map."""
    run = daskumap.fit(small, client="sequential", progress=False, random_state=1, report=False, **OPTIONS)
    return sha(run.embedding)


@pytest.fixture
def source(write, small, block_sizes):
    block_sizes(row_block=100)
    return write(small, chunks=(50, 8))


def change(source, first, last):
    """Change rows in place: neither shape nor metadata nor the rows that a fingerprint looks at."""
    array = zarr.open_array(str(source), mode="r+")
    rows = array[first:last]
    looked_at = np.linspace(0, array.shape[0] - 1, 16).astype(int)
    moved = np.flatnonzero(~np.isin(np.arange(first, last), looked_at))
    rows[moved, 3] += 0.5
    array[first:last] = rows


@pytest.mark.parametrize("client", ["sequential", "1x2"])
def test_a_finished_run_is_not_that_of_changed_rows(fit, source, held, tmp_path, client):
    place = held if client == "sequential" else tmp_path / "run.zarr"
    bits = sha(fit(source, place, **OPTIONS).embedding)
    assert sha(fit(source, place, client=client, **OPTIONS).embedding) == bits
    change(source, 150, 250)
    with pytest.raises(RunMismatchError, match=OTHER):
        fit(source, place, client=client, **OPTIONS)
    assert fit(source, place, trust_input=True, **OPTIONS).finished
    assert sha(fit(source, place, restart=True, **OPTIONS).embedding) != bits


@pytest.mark.parametrize("stage", ["partition.cells", "layout"])
@pytest.mark.parametrize("how", ["fit", "resume"])
def test_an_unfinished_run_does_not_go_on_with_changed_rows(
    fit, source, whole, held, sequential, tmp_path, stage, how
):
    def go_on(**options):
        if how == "fit":
            return fit(source, held, **OPTIONS, **options)
        return daskumap.resume(held, client="sequential", progress=False, **options)

    with pytest.raises(TaskError):
        fit(
            source,
            held,
            client=FailingEngine(sequential, tmp_path / "w", {(stage, 0): [Fault()]}),
            **OPTIONS,
        )
    shutil.copytree(source, tmp_path / "kept.zarr")
    change(source, 150, 250)
    with pytest.raises(RunMismatchError, match=OTHER):
        go_on()
    shutil.rmtree(source)
    shutil.copytree(tmp_path / "kept.zarr", source)
    assert sha(go_on().embedding) == whole


def test_a_scan_that_was_cut_short_knows_what_it_read(fit, source, held, sequential, tmp_path):
    engine = FailingEngine(sequential, tmp_path / "w", {("scan", 2): [Fault()]})
    with pytest.raises(TaskError):
        fit(source, held, client=engine, **OPTIONS)
    change(source, 200, 400)  # not read so far
    fit(source, held, **OPTIONS)
    change(source, 0, 100)
    with pytest.raises(RunMismatchError, match="in 1 of 4 blocks of rows, first in rows 0 to 99"):
        fit(source, held, **OPTIONS)


def test_the_caller_may_vouch_for_the_input(fit, source, held, sequential, tmp_path):
    fit(source, held, **OPTIONS)
    engine = FailingEngine(sequential, tmp_path / "w")
    fit(source, held, client=engine, trust_input=True, **OPTIONS)
    assert engine.counts() == {}
    fit(source, held, client=engine, **OPTIONS)
    assert engine.counts() == {"scan.reread": 4}
    with pytest.raises(DaskumapError, match="trust_input is 'no'; it must be True or False"):
        daskumap.fit(source, held, trust_input="no")


def test_the_command_line(source, tmp_path, capsys):
    place = tmp_path / "run.zarr"
    arguments = ["fit", str(source), str(place), "--seed", "1", "--no-report", "--quiet", "--n-epochs", "20"]
    assert main(arguments) == 0
    change(source, 150, 250)
    assert main(arguments) == 6
    assert "holds a run of another input" in capsys.readouterr().err
    assert main([*arguments, "--trust-input"]) == 0
