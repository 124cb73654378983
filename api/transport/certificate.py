"""The certificate of a node that speaks TLS itself; loaded again when one of its files changes.

Invariant: `context` and `pair` always hold a certificate with its own key. While the files do not
fit together, for example because a renewal has written only one of them, the earlier pair stays in
use. Connections that are open keep the certificate with which they began.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from cryptography import x509

from shared.errors import ConfigurationError

logger = logging.getLogger(__name__)

CHECK_S = 1.0  # between two looks at the files
EXPIRY_WARNING = timedelta(days=7)
# A node speaks HTTP/1.1 only; a proxy in front of it speaks the newer versions (deploy/).
APPLICATION_PROTOCOLS = ["http/1.1"]


class Pair(NamedTuple):
    """The bytes of the two files, PEM."""

    cert: bytes
    key: bytes


_Marks = tuple[tuple[int, int, int], ...]


class Certificate:
    """A certificate with its chain, and its key, both PEM.

    Args:
        cert: the path of the certificate; certificates of intermediate authorities follow it.
        key: the path of its key, which has no password.

    Attributes:
        context: what a new connection has to use; another object after a change.
        pair: the same certificate and its key for a server that needs their bytes; another object
            after a change.

    Raises:
        ConfigurationError: a file cannot be read, or is not what it should be.
    """

    def __init__(self, cert: str, key: str) -> None:
        self._paths = (Path(cert), Path(key))
        self._loaded: _Marks = ()
        self._refused: _Marks | None = None
        self._load()

    async def run(self) -> None:
        """Look at the files once each `CHECK_S` seconds, for ever."""
        while True:
            await asyncio.sleep(CHECK_S)
            self.refresh()

    def refresh(self) -> None:
        """Load the files if they have changed; log a change, and a pair that cannot be used.

        A pair that cannot be used is tried again each time, because its second file may follow.
        """
        marks = _marks(self._paths)
        if marks == self._loaded:
            return
        try:
            self._load()
        except ConfigurationError as exc:
            if marks != self._refused:
                logger.warning("certificate unusable", extra={"error": str(exc)})
            self._refused = marks
        else:
            logger.info("certificate loaded", extra={"cert": str(self._paths[0])})

    def _load(self) -> None:
        cert, key = self._paths
        marks = _marks(self._paths)
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.set_alpn_protocols(APPLICATION_PROTOCOLS)
            # Without this function OpenSSL would ask for a password on the terminal.
            context.load_cert_chain(cert, key, password=lambda: "")
            pair = Pair(cert.read_bytes(), key.read_bytes())
            expires = x509.load_pem_x509_certificate(pair.cert).not_valid_after_utc
        except (OSError, ValueError) as exc:  # ssl.SSLError is an OSError
            raise ConfigurationError(_why(cert, key, exc)) from exc
        if _marks(self._paths) != marks:
            return self._load()  # a renewal wrote between two of the reads above
        if expires - datetime.now(UTC) < EXPIRY_WARNING:
            logger.warning("certificate expires", extra={"at": expires.isoformat()})
        self._loaded, self.context, self.pair = marks, context, pair


def _marks(paths: tuple[Path, Path]) -> _Marks:
    """Return what changes with a file: its number, its time of writing in ns, its size in bytes.

    Without one of the files this is empty.
    """
    try:
        found = [path.stat() for path in paths]
    except OSError:
        return ()
    return tuple((each.st_ino, each.st_mtime_ns, each.st_size) for each in found)


def _why(cert: Path, key: Path, exc: Exception) -> str:
    for variable, path in (("TAILRACE_TLS_CERT", cert), ("TAILRACE_TLS_KEY", key)):
        try:
            path.open("rb").close()
        except OSError as unread:
            return f"{variable}: cannot read {path}: {unread.strerror}"
    if getattr(exc, "reason", None) == "KEY_VALUES_MISMATCH":
        return f"TAILRACE_TLS_KEY: {key} is not the key of the certificate {cert}"
    needed = "need a PEM certificate with its chain, and its PEM key without a password"
    return f"TAILRACE_TLS_CERT and TAILRACE_TLS_KEY ({cert}, {key}): {needed}"
