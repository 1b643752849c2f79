"""Map: where vertices start, how they move, and the embedding in the order of rows."""
