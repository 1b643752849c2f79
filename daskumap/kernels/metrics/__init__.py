"""Distances by name, and the Euclidean spaces that some of them have."""
