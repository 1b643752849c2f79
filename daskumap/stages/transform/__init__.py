"""Transform: new rows on the map of a finished run, the model."""
