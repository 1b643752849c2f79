"""Cells: where their centres are, which rows join them, and how they are sized for tasks."""
