"""The page of clusters runs as written; that of Kubernetes names commands and files that are there."""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import daskumap
from daskumap.cli.main import app

ROOT = Path(__file__).parents[2]
RUNS = re.compile(r"<!-- runs -->\n```(\w*)\n(.*?)```", re.DOTALL)


def test_commands_of_the_pages_are_ones_that_there_are():
    root = typer.main.get_command(app)
    found = 0
    for page in ("clusters.md", "kubernetes.md"):
        for line in (ROOT / "docs" / page).read_text().splitlines():
            if line.startswith("daskumap "):
                words = shlex.split(line.partition(" > ")[0])[1:]
                command = root.get_command(None, words.pop(0))
                if hasattr(command, "list_commands"):
                    command = command.get_command(None, words.pop(0))
                command.make_context(command.name, list(words))
                assert all((ROOT / word).is_file() for word in words if word.startswith("cluster_configs"))
                found += 1
            elif line.startswith("kubectl apply -f "):
                assert (ROOT / line.split()[-1]).is_file()
    assert found >= 7


@pytest.mark.processes
def test_the_page_of_clusters_runs_as_written(tmp_path):
    (tmp_path / "cluster_configs").symlink_to(ROOT / "cluster_configs")
    blocks = RUNS.findall((ROOT / "docs" / "clusters.md").read_text())
    assert [language for language, _ in blocks] == ["", "python", ""]
    for number, (language, text) in enumerate(blocks):
        if language == "python":
            (tmp_path / "page.py").write_text(text)
            text = "python page.py"
        log = tmp_path / f"{number}.log"
        assert run_lines(text, tmp_path, log) == 0, log.read_text()
    assert "kind: scheduler-file" not in (tmp_path / "start-cluster.sh").read_text()  # a script, not the file
    maps = [
        daskumap.open(tmp_path / f"clusters-{name}.zarr").embedding[:] for name in ("local", "python", "file")
    ]
    assert maps[0].tobytes() == maps[1].tobytes() == maps[2].tobytes()


def run_lines(text, folder, log):
    """Run lines as a shell does, with the commands of this environment; then end what they left in it."""
    python = shlex.quote(sys.executable)
    names = "\n".join(
        f'{name}() {{ {python} {module} "$@"; }}\nexport -f {name}'
        for name, module in (("python", ""), ("daskumap", "-m daskumap"), ("dask", "-m dask"))
    )
    with log.open("w") as out:
        shell = subprocess.Popen(
            ["bash", "-ec", f"{names}\n{text}"],
            cwd=folder,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return shell.wait(400)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGTERM)
