"""The user's input, read-only: one module for each kind, and a table that finds the right one."""
