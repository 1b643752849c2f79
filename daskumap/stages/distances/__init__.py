"""Given: what replaces the search where the input is a matrix of distances."""
