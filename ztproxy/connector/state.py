"""A connector's folder: its key, its certificate, who it is and whom it trusts.

Used by the other modules of the program. The folder and the key are the owner's alone; a certificate is
replaced as a whole or not at all. The key is made here and never leaves.
"""

import ssl
from pathlib import Path
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from msgspec import Struct

from ztproxy.crypto.certificates import CertificateError
from ztproxy.crypto.jose import SigningKey, signing_key
from ztproxy.crypto.jwk import spki_digest
from ztproxy.model.connector import connector_of
from ztproxy.net import keyfiles
from ztproxy.net.keyfiles import KeyFileError

#: What a person has to do something about: the exit code tells it from what may pass by itself.
FOR_GOOD: Final = 3


class ConnectorError(Exception):
    """The connector can not do what was asked; the message is for the person who asked."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Identity(Struct, frozen=True):
    """connector.json: what this connector was enrolled as, and where it dials."""

    name: str
    instance: str
    portal: str  # origin, "https://host[:port]"
    host: str  # the name of every proxy: in the handshake, in its certificate
    proxies: tuple[str, ...]  # "HOST:PORT"

    @property
    def key(self) -> str:
        """How people write it: NAME/INSTANCE."""
        return f"{self.name}/{self.instance}"

    @property
    def signer(self) -> str:
        """Its name in what it signs."""
        return f"{self.name}:{self.instance}"


class Folder:
    """One enrolled connector on disk. Every method blocks for a few small files at most."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.key_file = path / "connector.key"
        self.certificate_file = path / "connector.pem"
        self._ca_file = path / "server-ca.pem"
        self._identity_file = path / "connector.json"

    @property
    def enrolled(self) -> bool:
        """Whether there is a connector here."""
        return self._identity_file.exists()

    @property
    def ca(self) -> Path | None:
        """The authorities that were given at enrolment for portal and proxies; None: the system's."""
        return self._ca_file if self._ca_file.exists() else None

    def create(
        self, identity: Identity, key: EllipticCurvePrivateKey, certificate: str, ca: bytes | None
    ) -> None:
        """Write what was enrolled; connector.json comes last and makes it one. Raises ConnectorError."""
        try:
            self.prepare()
            keyfiles.write(self.key_file, keyfiles.key_pem(key))
            if ca is not None:
                keyfiles.write(self._ca_file, ca)
            else:
                self._ca_file.unlink(missing_ok=True)
            self.write_certificate(certificate, identity)
            self.write_identity(identity)
        except (KeyFileError, OSError) as error:
            raise ConnectorError(str(error)) from error

    def prepare(self) -> None:
        """Find out that the folder can be written before a code is used up. Raises ConnectorError."""
        try:
            keyfiles.private_folder(self.path)
            probe = self.path / ".writable"
            keyfiles.write(probe, b"")
            probe.unlink()
        except (KeyFileError, OSError) as error:
            raise ConnectorError(str(error)) from error

    def identity(self) -> Identity:
        """Return who this connector is. Raises ConnectorError."""
        if not self.enrolled:
            raise ConnectorError(
                f"{self.path}: no connector is enrolled here; have an administrator run `ztproxy connectors "
                "add NAME`, then run `ztproxy connector enrol` with the code",
                FOR_GOOD,
            )
        try:
            return msgspec.json.decode(keyfiles.read(self._identity_file), type=Identity)
        except (KeyFileError, msgspec.DecodeError) as error:
            raise ConnectorError(f"{self._identity_file}: not readable") from error

    def write_identity(self, identity: Identity) -> None:
        """Replace it. Raises ConnectorError."""
        try:
            keyfiles.write(self._identity_file, msgspec.json.encode(identity))
        except KeyFileError as error:
            raise ConnectorError(str(error)) from error

    def signer(self) -> SigningKey:
        """Return the connector's key, named as it signs. Raises ConnectorError."""
        return signing_key(self._key(), kid=self.identity().signer)

    def write_certificate(self, pem: str, identity: Identity) -> None:
        """Replace the certificate by one for the same key and name. Raises ConnectorError."""
        try:
            facts = keyfiles.leaf_of(pem.encode("ascii", "replace"))
            mine = connector_of(facts.spiffe_id or "") == (identity.name, identity.instance)
            if not mine or facts.spki != spki_digest(self._key().public_key()):
                raise ConnectorError("the portal handed out a certificate of somebody else")
            keyfiles.write(self.certificate_file, pem.encode("ascii"))
        except (CertificateError, KeyFileError) as error:
            raise ConnectorError(f"{self.certificate_file}: {error}") from error

    def term(self) -> tuple[int, int]:
        """Return from when to when (ms) the certificate is valid; (0, 0) when there is none."""
        facts = keyfiles.leaf_in(self.certificate_file)
        return (0, 0) if facts is None else (facts.not_before, facts.not_after)

    def context(self, ca: Path | None) -> ssl.SSLContext:
        """Return what proxies are dialled with: TLS 1.3, our certificate, `ca` or the authorities given at
        enrolment or the system's. Raises ConnectorError."""
        try:
            context = ssl.create_default_context(cafile=ca or self.ca)
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            context.set_alpn_protocols(["http/1.1"])
            context.load_cert_chain(self.certificate_file, self.key_file)
        except OSError as error:
            raise ConnectorError(f"{self.path}: key and certificate can not be used: {error}") from error
        return context

    def _key(self) -> EllipticCurvePrivateKey:
        try:
            return keyfiles.load_key(self.key_file)
        except KeyFileError as error:
            raise ConnectorError(str(error)) from error
