"""One TLS context for all HTTP clients of the tests.

Each client of httpx2 without one reads the certificates of the system: 20 ms of CPU time.
"""

from __future__ import annotations

import functools
import ssl


@functools.cache
def tls_context() -> ssl.SSLContext:
    return ssl.create_default_context()
