"""What Dagster shows beside an asset: the measures of a run, its verdict and its picture."""

from __future__ import annotations

import base64
import hashlib
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dagster import MetadataValue

from daskumap.jobs.summary import Summary
from daskumap.run import Run
from daskumap.secrets import hide_secrets
from daskumap.views import View


def of_run(run: View) -> dict[str, Any]:
    """Return where a result is, its rows, and what making it took."""
    report = run.report
    return {
        "run": MetadataValue.path(run.path),
        "dagster/row_count": MetadataValue.int(_rows(run)),
        "columns": MetadataValue.int(int(run.store.about["sizes"]["columns"])),
        "seconds": MetadataValue.float(round(float(report["seconds"]), 3)),
        "parameters": MetadataValue.json(_plain(run.params)),
    }


def of_report(run: Run) -> dict[str, Any]:
    """Return the verdict, each measure with its figure, the report as text, and the picture."""
    report = run.report
    verdict = report["verdict"]
    found: dict[str, Any] = {"run": MetadataValue.path(run.path)}
    if verdict is not None:
        found["verdict"] = MetadataValue.text(verdict["sentence"])
    found |= {name: value for name, figure in report["measures"].items() if (value := _figure(figure))}
    found["report"] = MetadataValue.md(f"```\n{run}\n```")
    if run.params["transform_mode"] != "graph":
        found["map"] = MetadataValue.md(f"![map](data:image/png;base64,{picture(run)})")
    return found


def of_all_placed(placed: list[View]) -> dict[str, Any]:
    """Return where new rows are, how many of them lie how, and how many are unlike those that were fitted."""
    found: dict[str, Any] = {"dagster/row_count": MetadataValue.int(sum(map(_rows, placed)))}
    for number, one in enumerate(placed, 1):
        end = "" if len(placed) == 1 else f" {number}"
        found[f"placed{end}"] = MetadataValue.path(one.path)
        figures = one.report.get("placed") or {}
        found |= {f"{name}{end}": value for name, f in figures.items() if (value := _figure(f))}
    return found


def of_summary(summary: Summary) -> dict[str, Any]:
    """Return what a job did, and why: "finished" where something was made, else "unchanged"."""
    found: dict[str, Any] = {"state": MetadataValue.text(summary.state)}
    if summary.reason:
        found["reason"] = MetadataValue.text(summary.reason)
    if summary.new_rows is not None:
        found |= {
            "new_rows": MetadataValue.int(summary.new_rows),
            "far": MetadataValue.float(summary.far or 0.0),
        }
    for name in ("results", "removed"):
        if getattr(summary, name):
            found[name] = MetadataValue.json(json.loads(hide_secrets(json.dumps(getattr(summary, name)))))
    return found


def joined(versions: Iterable[str]) -> str:
    """Return one digest of several."""
    return hashlib.sha256(" ".join(versions).encode()).hexdigest()


def _rows(run: View) -> int:
    return int(run.store.about["sizes"]["rows"])


def picture(run: Run) -> str:
    """Return the picture of a map, a PNG in base 64."""
    with tempfile.TemporaryDirectory(prefix="daskumap-") as folder:
        path = Path(folder) / "map.png"
        run.save_picture(path)
        return base64.b64encode(path.read_bytes()).decode()


def version(run: View) -> str:
    """Return what a result depends on, as a digest: another one means that the result may differ."""
    about = run.store.about
    known = {name: about[name] for name in ("params", "source", "model")}
    return hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode()).hexdigest()


def _figure(value: Any) -> Any:
    """Return a figure as Dagster shows and plots it; None for what is no figure."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int):
        return MetadataValue.int(value)
    return MetadataValue.float(value) if isinstance(value, float) else None


def _plain(params: dict[str, Any]) -> dict[str, Any]:
    """Return parameters as JSON types; what is none is shown as text."""
    plain: dict[str, Any] = json.loads(json.dumps(params, default=str))
    return plain
