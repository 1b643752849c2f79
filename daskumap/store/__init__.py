"""All that touches Zarr or a path: sources, the run store, the ledger."""
