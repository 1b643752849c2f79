"""Inverse: points of the map of a finished run, the model, back to rows of its data."""
