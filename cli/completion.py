"""`tailrace completion`: prints the completion of commands, options and choices for a shell."""

from __future__ import annotations

import argparse

import shtab


def completion(parser: argparse.ArgumentParser, shell: str) -> int:
    """Print the completion that shtab makes from the parser; return 0."""
    print(shtab.complete(parser, shell=shell))
    return 0
