"""The layout: forces, what an iteration draws, and the iterations."""
