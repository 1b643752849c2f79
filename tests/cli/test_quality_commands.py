"""`daskumap evaluate` and `stability`: what the library says, as text and as JSON."""

import json

import numpy as np
import pytest
import zarr

import daskumap
from daskumap.cli.main import main
from daskumap.evaluation.said import SAID

FEW = ["--probe-rows", "50", "--sample-rows", "60"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with rows, two maps of them and their classes."""
    folder = tmp_path_factory.mktemp("quality")
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(120, 5)).astype(np.float32)
    zarr.create_array(str(folder / "rows.zarr"), data=rows)
    np.save(folder / "map.npy", rows[:, :2])
    np.save(folder / "other.npy", rows[:, 1:3])
    np.save(folder / "classes.npy", rng.integers(3, size=120))
    return folder


def test_evaluate(made, capsys):
    words = [
        "evaluate",
        str(made / "rows.zarr"),
        str(made / "map.npy"),
        "--labels",
        str(made / "classes.npy"),
    ]
    assert main([*words, *FEW, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    expected = daskumap.evaluate(
        made / "rows.zarr", made / "map.npy", np.load(made / "classes.npy"), probe_rows=50, sample_rows=60
    )
    assert {name: found[name]["value"] for name in found} == {
        name: one.value for name, one in expected.items()
    }
    assert set(found) | {"seams"} == set(SAID)
    assert main([*words, *FEW]) == 0
    said = capsys.readouterr().out
    assert len(said.splitlines()) == len(found)
    assert f"{expected['continuity'].value:.4f}  {expected['continuity'].low:.4f} to" in said


def test_evaluate_says_what_is_not_defined_as_null(made, capsys):
    np.save(made / "point.npy", np.ones((120, 2)))
    words = ["evaluate", str(made / "rows.zarr"), str(made / "point.npy"), *FEW]
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["distance_correlation"]["value"] is None
    assert main(words) == 0
    assert "not defined" in capsys.readouterr().out


def test_stability(made, capsys):
    maps = [str(made / "map.npy"), str(made / "other.npy")]
    moved = str(made / "moved.npy")
    assert main(["stability", *maps, "--json", "--displacement", moved]) == 0
    found, expected = json.loads(capsys.readouterr().out), daskumap.stability(maps)
    assert found == {**expected.as_dict(), "displacement": moved}
    np.testing.assert_array_equal(np.load(moved), expected.displacement())
    assert main(["stability", *maps]) == 0
    assert f"{expected.disparity.value:.4f}" in capsys.readouterr().out


def test_mistakes(made, capsys):
    assert main(["stability", str(made / "map.npy")]) == 2
    assert "a list of two or more" in capsys.readouterr().err
    assert main(["stability", *[str(made / "map.npy")] * 2, "--displacement", "moved.txt"]) == 2
    assert "ends in .npy" in capsys.readouterr().err
    assert main(["evaluate", str(made / "rows.zarr")]) == 2
    assert "embedding is missing" in capsys.readouterr().err
    assert main(["evaluate", str(made / "rows.zarr"), str(made / "no.npy")]) != 0
    assert "There is no file" in capsys.readouterr().err
