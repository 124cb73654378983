"""The credentials of the port for gRPC: the certificate of the node, also after a renewal."""

from __future__ import annotations

import grpc

from api.transport.certificate import Certificate, Pair


def credentials(certificate: Certificate) -> grpc.ServerCredentials:
    """Return the credentials of a server that speaks TLS with the newest pair of `certificate`."""
    used = certificate.pair

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        # grpcio calls this function at each handshake, in a thread of its own. It reads no file.
        nonlocal used
        if certificate.pair is used:
            return None
        used = certificate.pair
        return _configuration(used)

    return grpc.dynamic_ssl_server_credentials(_configuration(used), renewed)


def _configuration(pair: Pair) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(pair.key, pair.cert)])
