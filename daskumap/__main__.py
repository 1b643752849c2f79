"""`python -m daskumap` is `daskumap`."""

import sys

from daskumap.cli.main import main

sys.exit(main())
