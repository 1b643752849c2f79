"""The command line: what it prints, where, and with which exit code."""

import functools
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr
from conftest import sha, unstamped

import daskumap
import daskumap.api
from daskumap.cli.main import COMMANDS, main
from daskumap.errors import ClusterError, TaskError
from daskumap.report.colours import of_classes

DOCS = Path(__file__).parents[2] / "docs"

QUICK = ["--scheduler", "sequential", "--n-epochs", "10", "--seed", "1", "--n-neighbors", "10"]


@pytest.fixture
def source(small, write):
    return str(write(small))


@pytest.fixture
def place(tmp_path):
    return str(tmp_path / "run.zarr")


def test_fit_then_status_and_report(source, place, fit, small, capsys):
    assert main(["fit", source, place, *QUICK, "--min-dist", "0.05", "--set", "target_recall=0.9"]) == 0
    said = capsys.readouterr()
    assert said.out.endswith(
        f"\n\nembedding            {place}/embedding\npicture              {place}/embedding.png\n"
    )
    assert "trustworthiness" in said.out
    assert "daskumap  layout: 1 task, " in said.err
    run = daskumap.open(place)
    options = {"n_neighbors": 10, "min_dist": 0.05, "target_recall": 0.9, "n_epochs": 10}
    assert options.items() <= run.params.items()
    assert sha(run.embedding) == sha(fit(small, **options).embedding)

    assert main(["status", place]) == 0
    assert "finished" in capsys.readouterr().out
    assert main(["status", place, "--json"]) == 0
    standing = json.loads(capsys.readouterr().out)
    assert (standing["finished"], standing["tasks"], standing["share"]) == (True, run.status(), 1)
    assert main(["report", place]) == 0
    assert capsys.readouterr().out == f"{run}\n"
    assert main(["report", place, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == run.report


def test_fit_without_a_report(source, place, capsys):
    assert main(["fit", source, place, *QUICK, "--no-report", "--keep", "embedding"]) == 0
    said = capsys.readouterr()
    run = daskumap.open(place)
    assert said.out == f"{run}\n\nembedding            {place}/embedding\n"
    assert said.out.startswith("stage  ")
    assert run.params["keep"] == "embedding"
    assert main(["report", place]) == 0
    assert capsys.readouterr().out == f"{run}\n"
    assert main(["report", place, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["measures"] == {}
    assert main(["status", place]) == 0
    shown = capsys.readouterr().out
    assert "finished" in shown
    assert "publish" in shown
    assert "report." not in shown
    assert main(["verify", place]) == 0
    assert capsys.readouterr().out == "All is well.\n"


def test_a_fit_of_a_finished_run_says_so(source, place, capsys):
    command = ["fit", source, place, *QUICK, "--no-report"]
    assert main(command) == 0
    first = capsys.readouterr()
    assert "Nothing was left to do" not in first.err
    reread = r"daskumap  scan: 1 task, \d+\.\d s\n"  # A fit names an input, which is compared.
    for again, before in ((command, reread), ([*command, "--trust-input"], ""), (["resume", place], "")):
        assert main(again) == 0
        said = capsys.readouterr()
        assert re.fullmatch(
            before + rf"daskumap  Nothing was left to do: the run in {place} was finished at \S+\.\n",
            unstamped(said.err),
        )
        assert said.out == first.out


def test_quiet_says_nothing(source, place, capsys):
    assert main(["fit", source, place, *QUICK, "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_plan_prints_what_the_library_plans(source, capsys):
    assert (
        main(["plan", source, "--memory", "2GB", "--threads", "2", "--workers", "3", "--metric", "cosine"])
        == 0
    )
    expected = daskumap.api.plan(source, memory="2GB", threads=2, workers=3, metric="cosine", random_state=0)
    assert capsys.readouterr().out == f"{expected}\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["fit", "{source}", "{place}", "--n-neighbors", "1"], 2, "n_neighbors is 1; it must be"),
        (["fit", "{source}", "{place}", "--set", "nothing"], 2, r"--set nothing has no '='"),
        (["fit", "{source}", "{place}", "--set", "speed=3"], 2, "Unknown parameter 'speed'"),
        (
            ["fit", "{source}", "{place}", "--scheduler", "none.json"],
            2,
            "There is no scheduler file none.json",
        ),
        (["plan", "no.zarr"], 3, "There is nothing at"),
        (["plan", "{source}", "--memory", "1MB"], 4, "Stage 'scan.look' needs"),
        (["status", "{place}"], 5, "There is no run store at"),
        (["report", "{source}"], 5, "There is no run store at|not a run store"),
    ],
)
def test_exit_codes(source, place, capsys, arguments, code, message):
    assert main([argument.format(source=source, place=place) for argument in arguments]) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert unstamped(said.err).startswith("daskumap: ")
    assert re.search(message, said.err)
    assert "Traceback" not in said.err


def test_exit_codes_of_a_run_of_another_kind(source, place, capsys):
    assert main(["fit", source, place, *QUICK, "--quiet"]) == 0
    assert main(["fit", source, place, *QUICK, "--quiet", "--min-dist", "0.3"]) == 6
    assert "min_dist was 0.1 and is now 0.3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TaskError("Stage 'scan', task 3 failed 3 times"), 7),
        (ClusterError("The connection to the scheduler was lost."), 8),
    ],
)
def test_what_fails_on_the_way_has_a_code(source, place, capsys, monkeypatch, error, code):
    def fail(*args, **options):
        raise error

    monkeypatch.setattr(daskumap, "fit", fail)
    assert main(["fit", source, place]) == code
    assert unstamped(capsys.readouterr().err) == f"daskumap: {error}\n"


@pytest.fixture
def planned(monkeypatch):
    """What `daskumap.plan` is called with."""
    assert callable(daskumap.plan)  # so that the names are loaded
    given = {}
    monkeypatch.setattr(daskumap, "plan", lambda data, **params: given.update(params))
    return given


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=1.5", 1.5),
        ("b=3", 3),
        ("c=null", None),
        ("d=[1, 2]", [1, 2]),
        ("e=word", "word"),
        ("f=x=y", "x=y"),
        ("g=.01", 0.01),
        ("h=-2.", -2.0),
        ("i=True", True),
        ("j=None", None),
        ("k=(1, 2)", (1, 2)),
        ("l=run.zarr", "run.zarr"),
        ("m={[1]: 2}", "{[1]: 2}"),
    ],
)
def test_set(text, value, source, planned):
    assert main(["plan", source, "--set", text, "--n-epochs", "7"]) == 0
    assert planned == {text[0]: value, "n_epochs": 7}


@pytest.mark.parametrize(
    ("arguments", "params"),
    [
        ("", {}),
        ("--no-report", {"report": False}),
        ("--keep all", {"keep": "all"}),
        ("--keep embedding --no-report", {"keep": "embedding", "report": False}),
    ],
)
def test_what_a_run_leaves_behind(arguments, params, source, place, planned, monkeypatch):
    fitted = {}
    monkeypatch.setattr(daskumap, "fit", lambda data, run, **options: fitted.update(options))
    assert main(["plan", source, *arguments.split()]) == 0
    assert planned == params
    assert main(["fit", source, place, "--quiet", *arguments.split()]) == 0
    switches = dict.fromkeys(("progress", "restart", "take_over", "trust_input"), False)
    assert fitted == {**params, **switches, "client": None}


def test_each_command_without_standard_error(source, place, tmp_path, monkeypatch, capfd):
    """As of a service without a console; an error still has its code."""
    monkeypatch.setattr(sys, "stderr", None)
    quick = QUICK[:2]
    for arguments, code in (
        (["plan", source], 0),
        (["fit", source, place, *QUICK], 0),
        (["fit", source, place, *QUICK], 0),
        (["transform", place, source, f"{place}-new", *quick], 0),
        (["inverse", place, f"{place}/embedding", f"{place}-rows", *quick], 0),
        (["save", place, f"{place}-copy"], 0),
        (["resume", place, *quick], 0),
        (["status", place], 0),
        (["report", place], 0),
        (["diagnose", place], 0),
        (["verify", place], 0),
        (["verify", source], 5),
    ):
        assert main(arguments) == code
        sys.stderr.close()
        monkeypatch.setattr(sys, "stderr", None)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    "arguments", ["", "fit", "nonsense", "fit a b --init magic", "fit a b --nope", "plan a --keep some"]
)
def test_wrong_usage(arguments, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(arguments.split())
    assert exit_.value.code == 2
    assert "usage: daskumap" in capsys.readouterr().err


@pytest.mark.parametrize("command", [name for part in COMMANDS.values() for name in part])
def test_each_command_has_help(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main([command, "--help"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: daskumap {command}")
    assert (
        f"Example\n  daskumap {command}" in said or "\nCommands\n" in said
    )  # those of a group have their own
    assert max(map(len, said.splitlines())) <= 80


def run(code, *arguments):
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120
    )


HEAVY = ("numpy", "scipy", "zarr", "dask", "distributed", "numba", "sklearn", "pandas", "rich")


@pytest.mark.parametrize("arguments", ["--help", "--version", "fit --help", "plan --help"])
def test_the_command_line_imports_nothing_heavy(arguments):
    code = f"""if True:
        import sys
        from daskumap.cli.main import main
        try:
            main(sys.argv[1:])
        finally:
            print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"""
    assert run(code, *arguments.split()).stderr == "[]\n"


def test_the_import_imports_nothing_heavy():
    code = "import sys, daskumap; dir(daskumap), daskumap.__version__, daskumap.DaskumapError"
    assert run(f"{code}; print([name for name in {HEAVY} if name in sys.modules])").stdout == "[]\n"


def test_the_command_in_a_process_of_its_own(source, place):
    """As installed: the exit code reaches the shell, errors go to stderr in one line."""
    done = run("from daskumap.cli.main import main; import sys; sys.exit(main())", "plan", "no.zarr")
    assert done.returncode == 3
    assert done.stdout == ""
    assert unstamped(done.stderr).startswith("daskumap: There is nothing at")
    assert done.stderr.count("\n") == 1


def test_demo(tmp_path, capsys, monkeypatch, pictures):
    quick = functools.partial(daskumap.fit, client="sequential", n_epochs=20)
    monkeypatch.setattr(daskumap, "fit", quick)
    folder = tmp_path / "demo"
    assert main(["demo", str(folder)]) == 0
    assert "trustworthiness" in capsys.readouterr().out
    # As the README's: beside the map a legend, which does not depend on where rows lie.
    read = pytest.importorskip("matplotlib.image").imread
    for picture in (folder / "digits.png", DOCS / "digits.png"):
        legend = read(picture)[:, -100:, :3].reshape(-1, 3)
        for colour in of_classes(10, (255, 255, 255)) / 255:
            assert (abs(legend - colour).max(axis=1) < 0.02).sum() > 50
    np.testing.assert_array_equal(zarr.open_array(str(folder / "digits.zarr"))[:], pictures)
    assert daskumap.open(folder / "run.zarr").finished


def test_train_then_transform_inverse_and_predict(source, place, small, tmp_path, capsys):
    out, labels = str(tmp_path / "trained.zarr"), tmp_path / "labels.npy"
    np.save(labels, np.where(np.arange(400) % 9, -1, np.arange(400) % 2))
    assert main(["fit", source, place, *QUICK, "--no-report"]) == 0
    words = ["--labels", str(labels), "--decoder", "--steps", "20", "--set", "hidden=[8]", "--no-report"]
    capsys.readouterr()
    assert main(["train", place, out, *words, "--scheduler", "sequential"]) == 0
    assert capsys.readouterr().out.endswith(f"\n\nembedding            {out}/embedding\n")
    trained = daskumap.open(out)
    assert trained.params["encoder"]["hidden"] == [8]
    assert trained.encoder.classes == (0, 1)

    here, made = ["--scheduler", "sequential"], str(tmp_path / "made.zarr")
    assert main(["transform", out, source, made, *here]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("400 rows mapped by the encoder, not placed by neighbours")
    assert said.out.endswith(f"embedding            {made}/embedding\n")
    assert sha(daskumap.open(made).embedding) == sha(trained.embedding)
    back, classes = str(tmp_path / "back.zarr"), str(tmp_path / "classes.zarr")
    assert main(["inverse", out, f"{made}/embedding", back, *here]) == 0
    assert capsys.readouterr().out.endswith(f"inverted             {back}/inverted\n")
    assert main(["predict", out, source, classes, *here]) == 0
    assert capsys.readouterr().out.endswith(
        f"predicted            {classes}/predicted\nprobabilities        {classes}/probabilities\n"
    )
    assert main(["save", out, str(tmp_path / "model.zarr")]) == 0
    assert "daskumap.Encoder" in capsys.readouterr().out
    assert main(["predict", place, source, classes, "--restart"]) == 5
    assert "is that of a layout, without a network" in capsys.readouterr().err
