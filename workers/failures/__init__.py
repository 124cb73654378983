"""Decides what follows a failed attempt."""
