"""Loads the part of this dialect that needs protobuf, at the first request that needs it.

A node without the extra `grpc` starts, and answers such requests with an error that says what to
install.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

from api.errors import request_error

INSTALL = "this node has no protobuf: its operator installs it with pip install 'tailrace[grpc]'"


def messages() -> Any:
    """Return the module `messages`.

    Raises:
        RequestError: 501 `not_installed`.
    """
    found = _find()
    if found is None:
        raise request_error("not_installed", INSTALL)
    return found


@cache
def _find() -> Any:
    try:
        return import_module("api.dialects.grpc.messages")
    except ImportError:
        return None
