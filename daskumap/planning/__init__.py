"""Plans are data, made by arithmetic on metadata: no dask, no zarr, no numba."""
