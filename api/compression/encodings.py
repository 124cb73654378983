"""The encodings that the operator has configured, in order, and a bound on private compressors.

A private compressor serves one reader only (api/readers/encoded_body.py); Brotli and Zstandard need
one for each reader. Knows no log and no HTTP.
"""

from __future__ import annotations

from importlib import import_module
from weakref import WeakSet

from api.compression.encoding import Encoding
from shared.config.settings import PREFIX
from shared.errors import ConfigurationError

# Of one node: about 60 MB with Brotli. Further readers get the next encoding that they accept.
PRIVATE_CONTEXTS_MAX = 100
MODULES = {
    "gzip": ("api.compression.gzip_encoding", "GzipEncoding"),
    "zstd": ("api.compression.zstd_encoding", "ZstdEncoding"),
    "br": ("api.compression.brotli_encoding", "BrotliEncoding"),
}
INSTALL = "pip install 'tailrace[compression]'"


class Encodings:
    """The encodings of one node.

    Args:
        names: as `TAILRACE_STREAM_ENCODINGS` has them.

    Attributes:
        by_name: in the order of the setting; empty: streams are not compressed.
        private: the bodies that have a compressor of their own.

    Raises:
        ConfigurationError: a package is not installed.
    """

    def __init__(self, names: tuple[str, ...] = ()) -> None:
        self.by_name: dict[str, Encoding] = {name: _load(name) for name in names}
        self.private: WeakSet[object] = WeakSet()

    @property
    def has_room(self) -> bool:
        """Whether one more reader may have a compressor of its own."""
        return len(self.private) < PRIVATE_CONTEXTS_MAX


def _load(name: str) -> Encoding:
    module, attribute = MODULES[name]
    try:
        encoding: Encoding = getattr(import_module(module), attribute)()
    except ImportError as exc:
        raise ConfigurationError(
            f"{PREFIX}STREAM_ENCODINGS names {name}, whose package is not installed: run {INSTALL}"
        ) from exc
    return encoding
