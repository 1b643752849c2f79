"""Parametric UMAP: a network that maps rows, its losses, its batches and its training, on arrays alone."""
