"""The program of one process that computes answers of a local model: see engine.py."""
