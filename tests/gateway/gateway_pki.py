"""Certificates for tests: an authority that issues what a test asks for, right or wrong."""

import datetime
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = datetime.datetime.now(datetime.UTC)


@dataclass(frozen=True)
class Files:
    certificate: Path
    key: Path


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


_USAGES = """digital_signature content_commitment key_encipherment data_encipherment key_agreement
key_cert_sign crl_sign encipher_only decipher_only"""


def usage(**on: bool) -> x509.KeyUsage:
    return x509.KeyUsage(**{one: on.get(one, False) for one in _USAGES.split()})


class Authority:
    """A certificate authority with its file."""

    def __init__(self, directory: Path, title: str = "test authority") -> None:
        self.directory = directory
        self.title = title
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.file = directory / f"{title.replace(' ', '-')}.pem"
        self.issued = 0
        self.certificate = (
            self._builder(name(title), self.key, NOW + datetime.timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
            .add_extension(usage(key_cert_sign=True, crl_sign=True), critical=True)
            .sign(self.key, hashes.SHA256())
        )
        self.file.write_bytes(self.certificate.public_bytes(Encoding.PEM))

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    def server(self, *names: str) -> Files:
        return self._issue([x509.DNSName(one) for one in names], ExtendedKeyUsageOID.SERVER_AUTH)

    def client(
        self,
        *uris: str,
        common_name: str = "",
        days: int = 1,
        key_usage: x509.KeyUsage | None = None,
    ) -> Files:
        return self._issue(
            [x509.UniformResourceIdentifier(uri) for uri in uris],
            ExtendedKeyUsageOID.CLIENT_AUTH,
            ExtendedKeyUsageOID.SERVER_AUTH,
            common_name=common_name,
            days=days,
            key_usage=key_usage,
        )

    def trust(self) -> ssl.SSLContext:
        """A client context that trusts this authority."""
        return ssl.create_default_context(cafile=str(self.file))

    def _issue(
        self,
        names: list[x509.GeneralName],
        *purposes: x509.ObjectIdentifier,
        common_name: str = "",
        days: int = 1,
        key_usage: x509.KeyUsage | None = None,
    ) -> Files:
        self.issued += 1
        key = ec.generate_private_key(ec.SECP256R1())
        subject = name(common_name) if common_name else x509.Name([])
        builder = (
            self._builder(subject, key, NOW + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(key_usage or usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=not common_name)
        files = Files(
            self.directory / f"{self.title.replace(' ', '-')}-{self.issued}.pem",
            self.directory / f"{self.title.replace(' ', '-')}-{self.issued}.key",
        )
        files.certificate.write_bytes(builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM))
        files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return files

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, end: datetime.datetime
    ) -> x509.CertificateBuilder:
        public = self.key.public_key()
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(name(self.title))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(min(NOW, end) - datetime.timedelta(hours=1))
            .not_valid_after(end)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        )
