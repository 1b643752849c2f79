"""Training: a network that maps rows, trained on the graph of a finished run, and the map that it makes."""
