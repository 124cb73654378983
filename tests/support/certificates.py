"""An authority of our own and what it has signed, made by the `openssl` command."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

HAS_OPENSSL = shutil.which("openssl") is not None
_EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")

_SIGNING = """
[ca]
default_ca = this
[this]
database = {folder}/{name}.index
new_certs_dir = {folder}
rand_serial = yes
default_md = sha256
policy = any
x509_extensions = host
[any]
commonName = supplied
[host]
subjectAltName = DNS:{name}
basicConstraints = CA:FALSE
"""


class Authority:
    """Signs certificates. Each is a pair of files in `folder`: NAME.pem and NAME.key.

    Attributes:
        ca_file: the authority's own certificate.
    """

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self.folder = folder
        self._name = name
        self.ca_file = str(folder / f"{name}.pem")
        _openssl(
            *("req", "-x509", *_EC, "-noenc", "-days", "2", "-subj", f"/CN={name}"),
            *("-keyout", str(folder / f"{name}.key"), "-out", self.ca_file),
        )

    def sign(self, name: str) -> tuple[str, str]:
        """Make a certificate for a host name or a client; return the paths of it and its key."""
        certificate, key = str(self.folder / f"{name}.pem"), str(self.folder / f"{name}.key")
        _openssl(
            *("req", "-x509", *_EC, "-noenc", "-days", "2", "-subj", f"/CN={name}"),
            *("-addext", f"subjectAltName=DNS:{name}", "-addext", "basicConstraints=CA:FALSE"),
            *("-CA", self.ca_file, "-CAkey", str(self.folder / f"{self._name}.key")),
            *("-keyout", key, "-out", certificate),
        )
        return certificate, key

    def sign_for_years(self, name: str, first: int, last: int) -> tuple[str, str]:
        """Make a certificate for a host name that is valid from one year to another."""
        certificate, key = str(self.folder / f"{name}.pem"), str(self.folder / f"{name}.key")
        request, settings = self.folder / f"{name}.csr", self.folder / f"{name}.cnf"
        (self.folder / f"{name}.index").write_text("")
        settings.write_text(_SIGNING.format(folder=self.folder, name=name))
        _openssl(
            *("req", *_EC, "-new", "-noenc", "-subj", f"/CN={name}", "-keyout", key),
            *("-out", str(request)),
        )
        # Only `openssl ca` takes dates in the past.
        _openssl(
            *("ca", "-batch", "-config", str(settings), "-in", str(request), "-out", certificate),
            *("-startdate", f"{first}0101000000Z", "-enddate", f"{last}0101000000Z"),
            *("-cert", self.ca_file, "-keyfile", str(self.folder / f"{self._name}.key")),
        )
        return certificate, key

    def server_context(self, name: str, *, needs_client: bool = False) -> ssl.SSLContext:
        """Return the context of a server, which accepts only clients that this authority signed."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.sign(name))
        if needs_client:
            context.load_verify_locations(self.ca_file)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def encrypt_key(key: str, target: Path) -> str:
    """Write a key with a password; return its path."""
    _openssl("pkey", "-in", key, "-aes256", "-passout", "pass:secret", "-out", str(target))
    return str(target)


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=30)
