"""The layout: forces, what an epoch draws, and the epochs."""
