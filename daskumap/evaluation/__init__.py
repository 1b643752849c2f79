"""Measures of any map beside its data, of the borders of a run's cells, and of maps beside one another."""
