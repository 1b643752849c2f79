"""Measures: what the map is worth, on the probe rows against all rows."""
