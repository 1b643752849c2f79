"""New rows through a trained network: to the map, to classes, and from the map back."""
