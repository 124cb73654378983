"""An API node with a compressor for each reader, as a middleware would compress: for comparison.

    python -m bench.support.private_node api

Everything else is the node that `tailrace api` starts.
"""

from __future__ import annotations

from api.compression import encodings
from api.readers import stream_encoding
from cli.main import main

if __name__ == "__main__":
    encodings.PRIVATE_CONTEXTS_MAX = 1_000_000
    stream_encoding._is_shared = lambda scope, encoding: False
    main()
