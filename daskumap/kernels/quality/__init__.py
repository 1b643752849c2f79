"""Measures of a map against its input."""
