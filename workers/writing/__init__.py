"""Writes answers into their logs: event ids, shared pipelines, counts."""
