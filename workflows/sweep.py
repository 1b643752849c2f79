"""Maps of one data set under several parameters, and a table of them: `python sweep.py sweep.yaml`.

The file is a job with a section `sweep`: parameters, each with a list of values. The neighbours are searched
once, by the run of the job itself; all other maps are made from it, each by a job of its own. Started again,
it makes what is missing.
"""

from __future__ import annotations

import csv
import itertools
import os
import re
import sys
from pathlib import Path
from typing import Any

import daskumap
from daskumap.errors import DaskumapError, ParameterError, exit_code
from daskumap.jobs.files import load

MEASURES = ("trustworthiness", "knn_preservation", "flyaway_ratio", "attractive_loss", "repulsive_loss")


def main(path: Path) -> None:
    """Run the base and all maps of the sweep; write and print the comparison."""
    job = load(path)
    sweep = job.pop("sweep", None)
    if not (
        isinstance(sweep, dict) and sweep and all(isinstance(one, list) and one for one in sweep.values())
    ):
        raise ParameterError(
            f"{path} has sweep: {sweep!r}; it must be parameters, each with a list of values, such as "
            "sweep: {min_dist: [0.1, 0.5]}."
        )
    os.chdir(path.absolute().parent)  # paths are as seen from the file
    base = daskumap.run_job({"name": "base", **job})
    rows = []
    for values in itertools.product(*sweep.values()):
        chosen = dict(zip(sweep, values, strict=True))
        rows.append({**chosen, **_map_of(job, str(base.run), chosen)})
    table = _beside(str(base.run)) / "comparison.csv"
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    sys.stdout.write(table.read_text())


def _map_of(job: dict[str, Any], base: str, chosen: dict[str, Any]) -> dict[str, Any]:
    """Make one map from the neighbours of the base; return where it is and what was measured."""
    name = re.sub(r"[^\w.=+-]", "_", "-".join(f"{key}={value}" for key, value in chosen.items()))
    place = f"{base.rpartition('/')[0]}/{name}.zarr"
    where = {key: job[key] for key in ("cluster", "memory", "threads") if key in job}
    one = {"name": name, "source": base, "run": place, "parameters": chosen, "when_changed": "restart"}
    done = daskumap.run_job({**one, **where})
    run = daskumap.open(str(done.run))
    run.save_picture(str(_beside(base) / f"{name}.png"))
    measures = run.report["measures"]
    return {**{name: measures.get(name) for name in MEASURES}, "run": place}


def _beside(run: str) -> Path:
    """Return the folder of pictures and the table: that of the runs, of a bucket the one of the file."""
    return Path.cwd() if "://" in run else Path(run).parent


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("Name the file of the sweep: python sweep.py sweep.yaml")
    try:
        main(Path(sys.argv[1]))
    except DaskumapError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(exit_code(error))
