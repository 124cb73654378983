"""Decides whether a generation is tried again, waits or ends after a failed attempt."""
