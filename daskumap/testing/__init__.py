"""Shipped with the package: data sets and plain-NumPy references, for its tests and for those of others."""
