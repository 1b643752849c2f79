"""Stages: each reads the stores, computes with kernels, writes the run store, and imports no other."""
