"""The fuzzy graph: bandwidths, the union with the transpose, and the spectral start."""
