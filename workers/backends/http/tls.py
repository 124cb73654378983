"""TLS contexts for connections to model servers, from the files that the models file names.

A context is made again when one of its files has changed, so that renewed certificates need no
restart of the worker. Without files, the authorities of the system count, or those that
SSL_CERT_FILE and SSL_CERT_DIR name.
"""

from __future__ import annotations

import os
import ssl
from functools import lru_cache
from typing import NamedTuple

CONTEXTS_MAX = 64  # kept; more models than this with files of their own read them again


class TlsFiles(NamedTuple):
    """The paths of PEM files; "" for none. Equal files share connections."""

    ca_file: str = ""
    client_cert: str = ""
    client_key: str = ""


class TlsFileInvalid(OSError):
    """A file cannot be read, or does not hold what its name says. The message names the file."""


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """Return the context for connections to a server.

    Raises:
        TlsFileInvalid: a file cannot be read, or is not what its name says.
    """
    return _context(files, tuple(_changed_at(path) for path in files))


def _changed_at(path: str) -> int:
    if not path:
        return 0
    try:
        return os.stat(path).st_mtime_ns
    except (OSError, ValueError) as exc:
        raise TlsFileInvalid(f"{path}: {getattr(exc, 'strerror', exc)}") from exc


@lru_cache(maxsize=CONTEXTS_MAX)
def _context(files: TlsFiles, changed_at: tuple[int, ...]) -> ssl.SSLContext:
    path = files.ca_file
    try:
        context = ssl.create_default_context(cafile=path or None)
    except ssl.SSLError as exc:
        raise TlsFileInvalid(f"{path}: holds no certificates in PEM form") from exc
    except OSError as exc:
        raise TlsFileInvalid(f"{path}: {exc.strerror}") from exc
    if files.client_cert:
        _load_pair(context, files)
    return context


def _load_pair(context: ssl.SSLContext, files: TlsFiles) -> None:
    key = files.client_key or files.client_cert
    try:
        # Without a password OpenSSL would ask for the password of a key on the terminal.
        context.load_cert_chain(files.client_cert, key, password=_no_password)
    except ssl.SSLError as exc:
        raise TlsFileInvalid(
            f"{files.client_cert} and {key}: a certificate in PEM form and its key, without a "
            f"password, are needed ({exc.reason or 'not readable'})"
        ) from exc
    except (OSError, ValueError) as exc:
        # load_cert_chain does not say which of its two files the error is about.
        path = files.client_cert if not os.access(files.client_cert, os.R_OK) else key
        raise TlsFileInvalid(f"{path}: {getattr(exc, 'strerror', exc)}") from exc


def _no_password() -> str:
    return ""
