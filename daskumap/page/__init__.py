"""The report of a run, or of several, as one HTML file that needs nothing else."""

from daskumap.page.write import write_page

__all__ = ["write_page"]
