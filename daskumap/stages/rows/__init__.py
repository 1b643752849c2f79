"""Rows: one pass that validates and samples them; which of them are copies."""
