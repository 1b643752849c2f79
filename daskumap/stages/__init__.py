"""Stages: each reads the stores, computes with kernels, and writes the run store. No stage imports another."""
