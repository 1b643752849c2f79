"""Cubes: arrays with named dimensions, of which some are samples, and the others features."""
