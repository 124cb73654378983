"""The certificate of the port for gRPC: that of the node, read again when its files change.

grpcio asks for it at each handshake, in a thread of its own. Invariant: grpcio has a certificate
with its own key. Until a renewal has written both files, the earlier pair stays in use.
"""

from __future__ import annotations

import ssl
from pathlib import Path

import grpc

from shared.config.settings import Settings
from shared.errors import ConfigurationError

Pair = tuple[bytes, bytes]  # the key and the certificate, PEM


class CertificateFiles:
    """The two files, and the pair that is in use."""

    def __init__(self, cert: str, key: str) -> None:
        self._paths = (Path(key), Path(cert))
        self._pair: Pair = (b"", b"")

    def changed(self) -> Pair | None:
        """Return the pair of the files; None: it is the one in use, or the files do not fit.

        Raises:
            OSError: the first pair cannot be used.
        """
        try:
            key, cert = pair = (self._paths[0].read_bytes(), self._paths[1].read_bytes())
            if pair == self._pair:
                return None
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self._paths[1], self._paths[0], password=lambda: "")
        except OSError:
            if not any(self._pair):
                raise
            return None
        self._pair = pair
        return key, cert


def credentials(settings: Settings) -> grpc.ServerCredentials:
    """Return the credentials of a server that speaks TLS.

    Raises:
        ConfigurationError: the files of TAILRACE_TLS_CERT and TAILRACE_TLS_KEY cannot be used.
    """
    files = CertificateFiles(settings.tls_cert, settings.tls_key)
    try:
        first = files.changed()
    except OSError as exc:
        raise ConfigurationError(f"TAILRACE_TLS_CERT, TAILRACE_TLS_KEY: {exc.strerror}") from exc
    assert first is not None

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        pair = files.changed()
        return None if pair is None else grpc.ssl_server_certificate_configuration([pair])

    initial = grpc.ssl_server_certificate_configuration([first])
    return grpc.dynamic_ssl_server_credentials(initial, fetch)
