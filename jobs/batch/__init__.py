"""Runs batches in slices: each line is a generation, and the results become files."""
