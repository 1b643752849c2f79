"""The script of a job is what the batch system takes: size, queue, account, time, settings."""

from pathlib import Path

import pytest
import yaml

from daskumap.clusters.files import parse

pytestmark = pytest.mark.services

CONFIGS = Path(__file__).parents[2] / "cluster_configs"
# Lines that the shipped file of each batch system gives, with the loopback in place of its network.
LINES = {
    "slurm": ["#SBATCH -p normal", "#SBATCH --cpus-per-task=8", "#SBATCH --mem=30G", "#SBATCH -t 12:00:00"],
    "pbs": ["#PBS -q normal", "#PBS -A my-project", "#PBS -l select=1:ncpus=8:mem=30GB"],
    "lsf": ["#BSUB -q normal", "#BSUB -n 8", '#BSUB -R "span[hosts=1]"', "#BSUB -M 32000", "#BSUB -W 12:00"],
    "sge": ["#$ -q all.q", "#$ -pe smp 8", "#$ -l h_vmem=4G", "#$ -l h_rt=12:00:00"],
}


@pytest.mark.parametrize("kind", LINES)
def test_a_script(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = yaml.safe_load((CONFIGS / f"{kind}.yaml").read_text())
    more = {"interface": "lo", "prologue": ["module load python"], "environment": {"HERE": "1"}}
    script = parse({**content, **more}, "file").shown()
    for line in [*LINES[kind], "module load python", "export HERE='1'", "export OMP_NUM_THREADS='1'"]:
        assert line in script.splitlines(), script
    assert "--nthreads 8 --memory-limit 29.80GiB" in script
    assert "--interface lo" in script
    assert "export DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED='False'" in script
    assert not list(tmp_path.iterdir())  # a look makes no folder
