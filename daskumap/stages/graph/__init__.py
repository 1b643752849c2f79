"""Graph: neighbours, calibration, and the union of both directions of an edge."""
