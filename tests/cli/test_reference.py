"""docs/command-line.md has what the help says, and the help says what each command takes."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from daskumap.cli.main import main
from daskumap.cli.reference import PAGE, REMEDY, with_reference

ROOT = Path(__file__).parents[2]


def test_the_reference_is_up_to_date():
    page = (ROOT / PAGE).read_text()
    assert page == with_reference(page), f"Run this in the folder of the project:  {REMEDY}"


def test_python_m_daskumap_is_the_command():
    done = subprocess.run([sys.executable, "-m", "daskumap", "--version"], capture_output=True, text=True)
    assert done.stdout.startswith("daskumap ")
    wrong = subprocess.run([sys.executable, "-m", "daskumap", "status", "no.zarr"], capture_output=True)
    assert wrong.returncode == 5


@pytest.mark.parametrize("words", ["--help", "fit --help", "status --help", "--version"])
def test_help_loads_nothing_slow(words):
    """Processor time of other processes counts in seconds on a clock: what is loaded says it as well."""
    code = (
        "import sys; from daskumap.cli.main import main; main(sys.argv[1:]);"
        "slow = {'pydantic', 'rich', 'yaml', 'numpy', 'asyncio'} & set(sys.modules);"
        "sys.exit(f'{slow}' if slow else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words.split()], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_help_takes_less_than_a_third_of_a_second():
    def once():
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "daskumap", "fit", "--help"], capture_output=True, check=True)
        return time.perf_counter() - start

    assert min(once() for _ in range(10)) < 0.3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("fti", "No such command 'fti'. Did you mean fit?"),
        ("cluster chekc", "No such command 'chekc'. Did you mean check?\n"),
        ("fit a b --n-neigbors 3", "No such option: --n-neigbors. Did you mean --n-neighbors"),
        (
            "fit a b --init spektral",
            "'spektral' is not one of 'pca', 'spectral', 'tswspectral', 'random'. Did",
        ),
        ("resume", "usage: daskumap resume [OPTIONS] RUN\ndaskumap: Missing argument 'RUN'."),
        ("fit a b --n-epochs x", "Invalid value for '--n-epochs': "),
        ("xyz", "`daskumap --help` shows all."),
    ],
)
def test_mistakes_are_answered_with_the_nearest_name(words, said, capsys):
    with pytest.raises(SystemExit) as over:
        main(words.split())
    assert over.value.code == 2
    assert said in capsys.readouterr().err


def test_colours_are_for_terminals_without_no_color(monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    main(["fit", "--help"])
    coloured = capsys.readouterr().out
    monkeypatch.setenv("NO_COLOR", "1")
    main(["fit", "--help"])
    assert "\033[" not in capsys.readouterr().out
    assert "\033[1mArguments\033[0m" in coloured


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_commands_options_and_choices(shell, monkeypatch, capsys):
    def complete(line):
        monkeypatch.setenv("_DASKUMAP_COMPLETE", f"complete_{shell}")
        for name, value in {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("_TYPER_COMPLETE_ARGS", line)
        monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
        with pytest.raises(SystemExit):
            main([])
        return capsys.readouterr().out

    assert "transform" in complete("daskumap tr")
    assert "--n-neighbors" in complete("daskumap fit --n-n")
    assert "spectral" in complete("daskumap fit a b --init sp")
