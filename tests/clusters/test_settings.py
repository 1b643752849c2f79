"""What Dask is told on each cluster is what Dask knows, and comes there by all ways."""

import dask.config
import distributed  # noqa: F401, its defaults are part of what Dask knows
import pytest

from daskumap.clusters import settings


@pytest.mark.parametrize("name", settings.shipped())
def test_sets_only_what_dask_knows(name: str) -> None:
    assert dask.config.get(name, "unknown") != "unknown"


def test_dask_loads_the_file() -> None:
    loaded = dask.config.collect([str(settings.FILE)], env={})
    merged = dask.config.merge(dask.config.config, loaded)
    assert {name: dask.config.get(name, config=merged) for name in settings.shipped()} == settings.shipped()
    # What the file leaves alone keeps its default.
    assert dask.config.get("distributed.nanny.pre-spawn-environ.OMP_NUM_THREADS", config=merged) == 1


def test_dask_reads_the_variables() -> None:
    read = dask.config.collect_env(settings.as_variables(settings.shipped()))
    merged = dask.config.merge(dask.config.config, read)
    assert {name: dask.config.get(name, config=merged) for name in settings.shipped()} == settings.shipped()


def test_settings_are_those_of_before_when_the_cluster_is_closed() -> None:
    before = {name: dask.config.get(name) for name in [*settings.shipped(), settings.SPAWN]}
    with settings.in_force(settings.shipped(), {"HERE": "1"}):
        assert {name: dask.config.get(name) for name in settings.shipped()} == settings.shipped()
        spawn = dask.config.get(settings.SPAWN)
        assert spawn["HERE"] == "1"
        assert spawn["OMP_NUM_THREADS"] == 1
    assert {name: dask.config.get(name) for name in before} == before
    assert not settings.differing(settings.shipped())
    assert settings.differing(before)["distributed.worker.profile.enabled"] is True
