"""Jobs as files: what a scheduler runs each night, whole, alone, and only where something changed."""
