"""Batches: slices that run lines as generations, and put their answers together."""
