"""The result of a run as other programs read it: tables, arrays and annotated data."""
