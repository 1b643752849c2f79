"""Command line before environment before file before default; and which of them it was."""

import json

import pytest

import daskumap
from daskumap.cli.main import main
from daskumap.errors import ParameterError


@pytest.fixture
def planned(monkeypatch):
    """What `daskumap.plan` is called with."""
    assert callable(daskumap.plan)
    given = {}

    class Planned:
        def as_dict(self):
            return {}

        def __str__(self):
            return "the plan"

    def plan(data, **params):
        given.clear()
        given.update(params)
        return Planned()

    monkeypatch.setattr(daskumap, "plan", plan)
    return given


@pytest.fixture
def config(tmp_path):
    def write(text):
        path = tmp_path / "values.yaml"
        path.write_text(text)
        return str(path)

    return write


def test_the_command_line_comes_first_then_the_environment_then_the_file(
    planned, config, monkeypatch, capsys
):
    file = config("n-neighbors: 30\nmetric: cosine\nmin_dist: 0.3\nunique: true\nfit:\n  spread: 2\n")
    monkeypatch.setenv("DASKUMAP_METRIC", "manhattan")
    monkeypatch.setenv("DASKUMAP_N_NEIGHBORS", "20")
    assert main(["plan", "a.zarr", "--config", file, "--n-neighbors", "10"]) == 0
    wanted = {"n_neighbors": 10, "metric": "manhattan", "min_dist": 0.3, "unique": True}
    assert planned == wanted
    said = capsys.readouterr().out
    assert said == (
        "the plan\n\n"
        "metric               manhattan  from environment, DASKUMAP_METRIC\n"
        f"min_dist             0.3  from {file}\n"
        f"unique               True  from {file}\n"
    )
    assert main(["plan", "a.zarr", "--config", file, "--n-neighbors", "10", "--json"]) == 0
    options = json.loads(capsys.readouterr().out)["options"]
    assert options["n_neighbors"] == {"value": 10, "from": "command line"}
    assert options["metric"] == {"value": "manhattan", "from": "environment, DASKUMAP_METRIC"}
    assert options["min_dist"] == {"value": 0.3, "from": file}
    assert "spread" not in options


def test_a_switch_of_a_file_can_be_switched_off(planned, config):
    file = config("unique: true\nreport: false\n")
    assert main(["plan", "a.zarr", "--config", file, "--no-unique", "--report"]) == 0
    assert planned == {"unique": False, "report": True}


def test_a_section_counts_before_what_holds_for_all(planned, config, monkeypatch):
    monkeypatch.setenv(
        "DASKUMAP_CONFIG", config("spread: 2\nseed: 1\nplan:\n  seed: 7\n  set: {alpha: 0.1}\n")
    )
    assert main(["plan", "a.zarr"]) == 0
    assert planned == {"spread": 2.0, "random_state": 7, "alpha": 0.1}


def test_a_section_for_a_command_of_two_words(config, tmp_path, capsys):
    wrong = config("cluster check: {jsn: true}\n")
    assert main(["cluster", "check", "x.yaml", "--config", wrong]) == 2
    assert "`daskumap cluster check` has no option jsn. Did you mean json?" in capsys.readouterr().err


def test_options_of_other_commands_are_left_to_them(planned, config):
    assert main(["plan", "a.zarr", "--config", config("quiet: true\nlabels: y.npy\nn-epochs: 9\n")]) == 0
    assert planned == {"n_epochs": 9}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("n-neigbors: 3", "no command has an option n-neigbors. Did you mean n-neighbors?"),
        ("plan: {sed: 3}", "`daskumap plan` has no option sed. Did you mean seed"),
        ("plan: 3", "plan has to be a section of options with values"),
        ("- a", "has to hold names of options with values"),
        ("a: [", "is not YAML"),
    ],
)
def test_files_that_say_nothing_sensible(text, said, planned, config, capsys):
    assert main(["plan", "a.zarr", "--config", config(text)]) == 2
    assert said in capsys.readouterr().err


def test_values_of_files_are_checked_as_those_of_the_command_line(planned, config, capsys):
    for text, said in (("init: magic", "'magic' is not one of"), ("n-epochs: many", "--n-epochs")):
        with pytest.raises(SystemExit) as over:
            main(["plan", "a.zarr", "--config", config(text)])
        assert over.value.code == 2
        assert said in capsys.readouterr().err


def test_a_file_that_is_not_there(planned, capsys, tmp_path):
    assert main(["plan", "a.zarr", "--config", str(tmp_path / "no.yaml")]) == 2
    assert "no.yaml cannot be read: No such file" in capsys.readouterr().err


def test_an_error_of_a_plan_still_has_its_code(monkeypatch, capsys):
    def plan(data, **params):
        raise ParameterError("n_neighbors is 1")

    assert callable(daskumap.plan)
    monkeypatch.setattr(daskumap, "plan", plan)
    assert main(["plan", "a.zarr", "--json"]) == 2
    assert capsys.readouterr().out == ""
