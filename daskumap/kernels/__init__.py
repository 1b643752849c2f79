"""Numba and NumPy functions on arrays: no dask, no zarr, no parameters object."""
