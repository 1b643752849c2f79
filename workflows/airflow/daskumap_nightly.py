"""A DAG of Airflow that runs a job file each night: put it into the folder of DAGs.

The variable of the environment DASKUMAP_JOB names the job file, and DASKUMAP the command, with its full path
where it is in an environment of its own.
"""

from __future__ import annotations

import os
import shlex
from datetime import datetime, timedelta

try:
    from airflow.providers.standard.operators.bash import BashOperator
    from airflow.sdk import DAG
except ImportError:  # Airflow 2
    from airflow import DAG
    from airflow.operators.bash import BashOperator

COMMAND = os.environ.get("DASKUMAP", "daskumap")
JOB = os.environ.get("DASKUMAP_JOB", "/srv/maps/nightly.yaml")

with DAG(
    dag_id="daskumap_nightly",
    schedule="0 2 * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    # A run that was killed goes on where it was.
    default_args={"retries": 3, "retry_delay": timedelta(minutes=1)},
) as dag:
    BashOperator(
        task_id="job",
        bash_command=f"exec {shlex.quote(COMMAND)} run {shlex.quote(JOB)} --log-json",
        # Another process runs the job: there is nothing to do here.
        skip_on_exit_code=9,
        append_env=True,
    )
