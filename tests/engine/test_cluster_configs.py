"""Each file in cluster_configs/ is what Dask reads, and sets only what Dask knows."""

from pathlib import Path
from typing import Any

import dask.config
import distributed  # noqa: F401, its defaults are part of what Dask knows
import pytest
import yaml

FILES = sorted((Path(__file__).parents[2] / "cluster_configs").iterdir())


def leaves(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings to dotted names."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        found |= leaves(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return found


def test_there_are_configs() -> None:
    assert FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_sets_only_what_dask_knows(path: Path) -> None:
    for name in leaves(yaml.safe_load(path.read_text())):
        assert dask.config.get(name, "unknown") != "unknown", name


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_dask_loads_it(path: Path) -> None:
    wanted = leaves(yaml.safe_load(path.read_text()))
    loaded = dask.config.collect([str(path)], env={})
    assert leaves(loaded) == wanted
    merged = dask.config.merge(dask.config.config, loaded)
    assert {name: dask.config.get(name, config=merged) for name in wanted} == wanted
    # What the file leaves alone keeps its default.
    assert dask.config.get("distributed.nanny.pre-spawn-environ.OMP_NUM_THREADS", config=merged) == 1
