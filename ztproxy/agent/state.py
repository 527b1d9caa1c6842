"""The agent's folder: who this device is, its key, its certificate, its counter, and how it last went.

Used by the other modules of the agent. The folder and the key are the owner's alone; the counter is durable
before anything that carries it is sent, so that no number is ever used twice.
"""

from pathlib import Path
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from msgspec import Struct

from ztproxy.crypto.jose import SigningKey, signing_key
from ztproxy.net import keyfiles
from ztproxy.net.keyfiles import KeyFileError

DEFAULT_PORT: Final = 7643


class AgentError(Exception):
    """The agent can not do what was asked; the message is for the person who asked."""


class Identity(Struct, frozen=True):
    """device.json: what this device was enrolled as."""

    id: str
    name: str
    portal: str  # origin, "https://host[:port]"
    origins: tuple[str, ...]  # whose pages may ask for a proof
    port: int = DEFAULT_PORT


class Status(Struct, frozen=True):
    """status.json: how the last report went. Times in ms."""

    at: int = 0
    accepted: bool = False
    seq: int = 0
    healthy: bool = False
    checks: dict[str, str] = {}
    error: str = ""  # code or reason of the refusal, "" when accepted
    certificate_ends: int = 0
    posture_file: int = 0  # modification time (ns) of the posture file that was reported, 0 without one


class Folder:
    """One enrolled device on disk. Every method blocks for a few small files at most."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.key_file = path / "device.key"
        self.certificate_file = path / "device.pem"
        self.ca_file = path / "portal-ca.pem"
        self._identity_file = path / "device.json"
        self._counter_file = path / "seq"
        self._status_file = path / "status.json"

    @property
    def enrolled(self) -> bool:
        """Whether there is a device here."""
        return self._identity_file.exists()

    def create(
        self, identity: Identity, key: EllipticCurvePrivateKey, certificate: str, ca: bytes | None
    ) -> None:
        """Write a newly enrolled device; device.json comes last and makes it one. Raises AgentError."""
        try:
            keyfiles.private_folder(self.path)
            keyfiles.write(self.key_file, keyfiles.key_pem(key))
            keyfiles.write(self._counter_file, b"0")
            if ca is not None:
                keyfiles.write(self.ca_file, ca)
            else:
                self.ca_file.unlink(missing_ok=True)
            self.write_certificate(certificate)
            keyfiles.write(self._identity_file, msgspec.json.encode(identity))
        except KeyFileError as error:
            raise AgentError(str(error)) from error

    def identity(self) -> Identity:
        """Return who this device is. Raises AgentError."""
        if not self.enrolled:
            raise AgentError(f"{self.path}: no device is enrolled here")
        try:
            return msgspec.json.decode(keyfiles.read(self._identity_file), type=Identity)
        except (KeyFileError, msgspec.DecodeError) as error:
            raise AgentError(f"{self._identity_file}: not readable") from error

    def signer(self) -> SigningKey:
        """Return the device's key, named by the device. Raises AgentError."""
        try:
            return signing_key(keyfiles.load_key(self.key_file), kid=self.identity().id)
        except KeyFileError as error:
            raise AgentError(str(error)) from error

    def write_certificate(self, pem: str) -> None:
        """Replace the certificate. Raises AgentError."""
        try:
            keyfiles.write(self.certificate_file, pem.encode("ascii"), 0o644)
        except KeyFileError as error:
            raise AgentError(str(error)) from error

    def certificate_term(self) -> tuple[int, int]:
        """Return from when to when (ms) the certificate is valid; (0, 0) when there is none."""
        facts = keyfiles.leaf_in(self.certificate_file)
        return (0, 0) if facts is None else (facts.not_before, facts.not_after)

    def next_seq(self, now: int) -> int:
        """Return a number never returned before, durable on return. Raises AgentError.

        A lost or damaged counter begins anew at the clock (`now`, ms), which is ahead of any count.
        """
        try:
            seq = int(keyfiles.read(self._counter_file)) + 1
        except (KeyFileError, ValueError):
            seq = now
        return self._count(seq)

    def skip_seq(self, now: int) -> None:
        """The portal knows a higher number (the folder was restored from a copy): go on from the clock."""
        try:
            last = int(keyfiles.read(self._counter_file))
        except (KeyFileError, ValueError):
            last = 0
        self._count(max(last, now))

    def _count(self, seq: int) -> int:
        try:
            keyfiles.write(self._counter_file, str(seq).encode("ascii"))
        except KeyFileError as error:
            raise AgentError(str(error)) from error
        return seq

    def write_status(self, status: Status) -> None:
        """Remember how it went. Raises AgentError."""
        try:
            keyfiles.write(self._status_file, msgspec.json.encode(status))
        except KeyFileError as error:
            raise AgentError(str(error)) from error

    def status(self) -> Status:
        """Return how the last report went; an empty status when there was none."""
        try:
            return msgspec.json.decode(keyfiles.read(self._status_file), type=Status)
        except (KeyFileError, msgspec.DecodeError):
            return Status()
