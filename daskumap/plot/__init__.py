"""Pictures of maps, in the manner of `umap.plot`, streamed: from 30 rows to 10^9, through matplotlib.

`points`, `density`, `connectivity` and `diagnostic` draw one map into matplotlib axes, `multiples` several
beside one another; `save` writes a figure to a file, and `tiles` a map to zoom into. Needs the extra `plot`.
"""

from daskumap.plot.diagnostics import diagnostic
from daskumap.plot.edges import connectivity
from daskumap.plot.maps import density, multiples, points
from daskumap.plot.pages import save
from daskumap.plot.tiles import tiles

__all__ = ["connectivity", "density", "diagnostic", "multiples", "points", "save", "tiles"]
