"""What Dagster runs: the assets, the schedule and the sensor of a job file. See docs/dagster.md."""

from pathlib import Path

from daskumap.dagster import definitions

defs = definitions(Path(__file__).with_name("job.yaml"), schedule="0 2 * * *")
