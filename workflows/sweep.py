"""Maps of one data set under several parameters, and a table of them: `python sweep.py sweep.yaml`.

The file is a job with a section `sweep`: parameters, each with a list of values. The neighbours are searched
once, by the run of the job itself; all other maps are made from it, each by a job of its own. Started again,
it makes what is missing.
"""

from __future__ import annotations

import csv
import itertools
import os
import sys
from pathlib import Path
from typing import Any

import yaml

import daskumap

MEASURES = ("trustworthiness", "knn_preservation", "flyaway_ratio", "attractive_loss", "repulsive_loss")


def main(path: Path) -> None:
    """Run the base and all maps of the sweep; write and print the comparison."""
    job = yaml.safe_load(path.read_text())
    os.chdir(path.parent)  # paths are as seen from the file
    sweep = job.pop("sweep")
    base = daskumap.run_job({"name": "base", **job})
    rows = []
    for values in itertools.product(*sweep.values()):
        chosen = dict(zip(sweep, values, strict=True))
        rows.append({**chosen, **_map_of(job, str(base.run), chosen)})
    table = Path(str(base.run)).parent / "comparison.csv"
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    sys.stdout.write(table.read_text())


def _map_of(job: dict[str, Any], base: str, chosen: dict[str, Any]) -> dict[str, Any]:
    """Make one map from the neighbours of the base; return where it is and what was measured."""
    name = "-".join(f"{key}={value}" for key, value in chosen.items())
    place = str(Path(base).parent / f"{name}.zarr")
    where = {key: job[key] for key in ("cluster", "memory", "threads") if key in job}
    one = {"name": name, "source": base, "run": place, "parameters": chosen, "when_changed": "restart"}
    done = daskumap.run_job({**one, **where})
    run = daskumap.open(str(done.run))
    run.save_picture(f"{place.removesuffix('.zarr')}.png")
    measures = run.report["measures"]
    return {**{name: measures.get(name) for name in MEASURES}, "run": place}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
