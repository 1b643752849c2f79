"""The stages: what each reads and writes, its memory formula, its task."""
