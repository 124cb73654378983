"""An authority of our own and the certificates that it has signed."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAY = timedelta(days=1)
_NO_PASSWORD = serialization.NoEncryption()


class Authority:
    """Signs certificates. Each is a pair of files in `folder`: NAME.pem and NAME.key.

    Attributes:
        ca_file: the authority's own certificate.
    """

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self.folder = folder
        self._name = _name(name)
        self._key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        certificate = (
            self._builder(self._key, name, now - _DAY, now + _DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.ca_file, _ = self._write(name, certificate, self._key)

    def sign(self, name: str) -> tuple[str, str]:
        """Make a certificate for a host name or a client; return the paths of it and its key."""
        now = datetime.now(UTC)
        return self._sign(name, now - _DAY, now + _DAY)

    def sign_for_years(self, name: str, first: int, last: int) -> tuple[str, str]:
        """Make a certificate for a host name that is valid from one year to another."""
        return self._sign(name, datetime(first, 1, 1, tzinfo=UTC), datetime(last, 1, 1, tzinfo=UTC))

    def server_context(self, name: str, *, needs_client: bool = False) -> ssl.SSLContext:
        """Return the context of a server, which accepts only clients that this authority signed."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.sign(name))
        if needs_client:
            context.load_verify_locations(self.ca_file)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _sign(self, name: str, since: datetime, until: datetime) -> tuple[str, str]:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            self._builder(key, name, since, until)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return self._write(name, certificate, key)

    def _builder(
        self, key: ec.EllipticCurvePrivateKey, name: str, since: datetime, until: datetime
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(since)
            .not_valid_after(until)
            # Python 3.13 and newer verify strictly, and demand these two.
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
        )

    def _write(
        self, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey
    ) -> tuple[str, str]:
        paths = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        paths[1].write_bytes(_pem(key, _NO_PASSWORD))
        return str(paths[0]), str(paths[1])


def encrypt_key(key: str, target: Path) -> str:
    """Write a key with a password; return its path."""
    loaded = serialization.load_pem_private_key(Path(key).read_bytes(), None)
    assert isinstance(loaded, ec.EllipticCurvePrivateKey)
    target.write_bytes(_pem(loaded, serialization.BestAvailableEncryption(b"secret")))
    return str(target)


def _pem(
    key: ec.EllipticCurvePrivateKey, encryption: serialization.KeySerializationEncryption
) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
