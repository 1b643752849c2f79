"""Nearest neighbours: candidates by matrix product, exact evaluation, merged lists."""
