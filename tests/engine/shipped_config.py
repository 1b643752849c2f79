"""What the shipped configuration of a cluster says."""

from pathlib import Path

import yaml

LOCAL = yaml.safe_load((Path(__file__).parents[2] / "cluster_configs" / "local.yaml").read_text())
ALLOWED_FAILURES = LOCAL["distributed"]["scheduler"]["allowed-failures"]
