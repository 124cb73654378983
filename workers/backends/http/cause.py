"""Says why a model server cannot be reached: one sentence for clients, one for the operator. Pure.

    DNS                  unknown name, no answer
    the way              refused, no route, no answer in time, closed at once
    TLS                  self-signed, unknown authority, expired, not valid yet, another host's
                         certificate, no common version, no TLS on this port, a client certificate
    HTTP                 TLS on this port
    proxy                refused, wants credentials

Invariant: the client's sentence names no host, address, port, file or path. The operator's sentence
names them and says what to do; only logs and the doctor show it.
Source: the verification codes of OpenSSL (x509_vfy.h) and its reasons (sslerr.h).
"""

from __future__ import annotations

import errno
import re
import socket
import ssl
from collections.abc import Iterator
from typing import NamedTuple

from shared.text.addresses import format_authority
from workers.backends.http.exchange import AnswerIsTls, ExchangeError
from workers.backends.http.proxy import ProxyRefused
from workers.backends.http.tls import TlsFileInvalid
from workers.backends.http.upstream_http import Origin

CHAIN_MAX = 10  # exceptions that are looked at: an HTTP client wraps the cause in its own

_SELF_SIGNED = (18, 19)  # the certificate itself; an authority in the chain that is not known
_UNKNOWN_AUTHORITY = (2, 20, 21, 27)
_NOT_YET_VALID, _EXPIRED = 9, 10
_OTHER_HOST = (62, 64)  # a name; an address
_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "UNKNOWN_PROTOCOL",
           "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "RECORD_TOO_SMALL")  # fmt: skip
_VERSIONS = ("UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION", "NO_PROTOCOLS_AVAILABLE",
             "WRONG_SSL_VERSION", "VERSION_TOO_LOW", "SSLV3_ALERT_HANDSHAKE_FAILURE",
             "NO_SHARED_CIPHER", "TLSV1_ALERT_INSUFFICIENT_SECURITY")  # fmt: skip
_CLIENT_CERTIFICATE = ("CERTIFICATE_REQUIRED", "BAD_CERTIFICATE", "ALERT_UNKNOWN_CA",
                       "CERTIFICATE_EXPIRED", "CERTIFICATE_UNKNOWN",
                       "CERTIFICATE_REVOKED", "UNSUPPORTED_CERTIFICATE")  # fmt: skip
_NO_ROUTE = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN,
             errno.EADDRNOTAVAIL)  # fmt: skip
_CLOSED = (errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE)
_ERRNO = re.compile(r"\[Errno (\d{1,5})\]")


class Cause(NamedTuple):
    """Why a server cannot be reached.

    Attributes:
        for_client: without names and addresses.
        for_operator: with them, and with what to do.
    """

    for_client: str
    for_operator: str


def explain(error: BaseException, origin: Origin) -> Cause:
    """Return the cause of a failed connection, or of one that was closed without an answer.

    Args:
        error: of this package, or of another HTTP client that keeps the first cause as
            `__cause__` or `__context__`.
    """
    chain = list(_chain(error))
    for exc in reversed(chain):  # the first cause
        if (found := _explain_one(exc, origin)) is not None:
            return found
    names = ", ".join(type(exc).__name__ for exc in chain)
    return Cause("the connection failed", f"{_server(origin)}: {error or names}: check this server")


def _chain(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    for _ in range(CHAIN_MAX):
        if found is None:
            return
        yield found
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)


def _explain_one(exc: BaseException, origin: Origin) -> Cause | None:
    """Return the cause that one exception tells; None: it tells none."""
    if isinstance(exc, TlsFileInvalid):
        said = "a certificate file of this system cannot be used"
        return Cause(said, f"{exc}: correct ca_file, client_cert and client_key of the model")
    if isinstance(exc, ProxyRefused):
        return _explain_proxy(exc, origin)
    if isinstance(exc, AnswerIsTls):
        said = "it needs https"
        return Cause(said, f"{_server(origin)} speaks TLS: write https:// in base_url")
    if isinstance(exc, ssl.SSLCertVerificationError):
        return _explain_certificate(exc, origin)
    if isinstance(exc, ssl.SSLError):
        return _explain_tls(exc, origin)
    if isinstance(exc, socket.gaierror):
        return _explain_dns(exc, origin)
    if isinstance(exc, TimeoutError):
        return _explain_silence(origin)
    if isinstance(exc, ExchangeError):
        return _explain_close(origin, is_connected=True) if exc.is_before_response else None
    if isinstance(exc, OSError):
        return _explain_errno(exc, origin)
    return None


def _explain_dns(exc: socket.gaierror, origin: Origin) -> Cause:
    host = origin.proxy.host if origin.proxy else origin.host
    place = "the proxy's URL" if origin.proxy else "base_url"
    if exc.errno == socket.EAI_AGAIN:
        advice = f"DNS gave no answer for {host}: check the DNS server of this machine"
        return Cause("DNS gives no answer", advice)
    advice = f"DNS knows no host {host}: correct {place}, or check the DNS server of this machine"
    return Cause("its host name is unknown", advice)


def _explain_errno(exc: OSError, origin: Origin) -> Cause | None:
    # Several addresses with several errors give one exception without a number.
    numbers = {exc.errno} if exc.errno else {int(number) for number in _ERRNO.findall(str(exc))}
    what = "the proxy" if origin.proxy else "it"
    where = _peer(origin)
    if errno.ECONNREFUSED in numbers:
        advice = f"no server listens at {where}: start it, or correct host and port"
        return Cause(f"{what} refuses the connection", advice)
    if errno.ETIMEDOUT in numbers:
        return _explain_silence(origin)
    if not numbers.isdisjoint(_NO_ROUTE):
        advice = f"no route leads to {where}: check the network of this machine"
        return Cause(f"no route leads to {'the proxy' if origin.proxy else 'it'}", advice)
    is_closed = isinstance(exc, ConnectionResetError | ConnectionAbortedError | BrokenPipeError)
    if is_closed or not numbers.isdisjoint(_CLOSED):  # asyncio's own have no number
        return _explain_close(origin)
    return None


def _explain_silence(origin: Origin) -> Cause:
    advice = (
        f"{_peer(origin)} does not answer: check that the server runs, and whether a firewall "
        "drops the packets"
    )
    if origin.is_tls:
        advice += "; a server that speaks http:// can be silent, too"
    return Cause("it does not answer", advice)


def _explain_close(origin: Origin, *, is_connected: bool = False) -> Cause:
    """Args:
    is_connected: the TLS handshake was over.
    """
    where = _server(origin)
    if origin.is_tls and is_connected:
        said = "it closes the connection without an answer"
        advice = (
            f"{where} closes the connection without an answer: look into its log; it may want "
            "another client certificate (client_cert, client_key)"
        )
    elif origin.is_tls:
        said = "it closes the connection"
        advice = f"{where} closes the connection: check that it speaks TLS, otherwise write http://"
    else:
        said = "it closes the connection without an answer"
        advice = (
            f"{where} closes the connection without an answer: look into its log; if it speaks "
            "TLS, write https:// in base_url"
        )
    return Cause(said, advice)


def _explain_certificate(exc: ssl.SSLCertVerificationError, origin: Origin) -> Cause:
    where, code = _server(origin), exc.verify_code
    if code in _SELF_SIGNED:
        said = "its certificate is self-signed"
        advice = f"the certificate of {where} is self-signed: name it, or its authority, in ca_file"
    elif code in _UNKNOWN_AUTHORITY:
        said = "its certificate is of an unknown authority"
        advice = (
            f"no known authority has signed the certificate of {where}: name the authority in "
            "ca_file; if the server sends no chain, add the intermediate certificates there"
        )
    elif code == _EXPIRED:
        said = "its certificate has expired"
        advice = f"the certificate of {where} has expired: renew it (or correct this clock)"
    elif code == _NOT_YET_VALID:
        said = "its certificate is not valid yet"
        advice = f"the certificate of {where} is not valid yet: check the clock of this machine"
    elif code in _OTHER_HOST:
        said = "its certificate is for another host"
        advice = (
            f"the certificate of {where} is not for this name ({exc.verify_message}): write a name "
            "of the certificate in base_url"
        )
    else:
        said = "its certificate is not valid"
        advice = f"the certificate of {where} is not valid: {exc.verify_message}"
    return Cause(said, advice)


def _explain_tls(exc: ssl.SSLError, origin: Origin) -> Cause:
    where, reason = _server(origin), (exc.reason or "").replace(" ", "_").upper()
    if reason in _NO_TLS:
        advice = f"{where} does not speak TLS: write http:// in base_url, or name its TLS port"
        return Cause("it does not speak TLS", advice)
    if reason in _VERSIONS:
        advice = f"{where} and this machine have no TLS version or cipher in common ({reason})"
        return Cause("it has no TLS version in common with this system", f"{advice}: update one")
    if any(name in reason for name in _CLIENT_CERTIFICATE):
        advice = f"{where} does not accept the client certificate of this system ({reason})"
        said = "it does not accept the certificate of this system"
        return Cause(said, f"{advice}: check client_cert and client_key")
    if "EOF" in reason or isinstance(exc, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return _explain_close(origin)
    return Cause("TLS failed", f"TLS with {where} failed: {exc.reason or exc}")


def _explain_proxy(exc: ProxyRefused, origin: Origin) -> Cause:
    advice = f"{_peer(origin)}: {exc}"
    if exc.status == 407:
        advice += ": put user and password into the proxy's URL"
    else:
        advice += f": check that this proxy lets {_server(origin)} through"
    return Cause(str(exc), advice)  # the message of `ProxyRefused` names no host


def _server(origin: Origin) -> str:
    return format_authority(origin.host, origin.port)


def _peer(origin: Origin) -> str:
    """Return the address of the first step of the way."""
    if origin.proxy is None:
        return _server(origin)
    return f"the proxy {origin.proxy.authority}"
