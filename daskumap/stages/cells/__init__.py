"""Cells: where they are, which rows join them, and the rows brought together cell by cell."""
