"""Engines run plans: the sequential one is the specification, the Dask one gives the same bits."""
