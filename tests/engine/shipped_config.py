"""What Dask is told on a cluster that daskumap starts."""

import yaml

from daskumap.clusters.settings import FILE

LOCAL = yaml.safe_load(FILE.read_text())
ALLOWED_FAILURES = LOCAL["distributed"]["scheduler"]["allowed-failures"]
