"""Connectors: programs beside applications that dial out to us. Values are stored, fed to workers and frozen.

A connector has a name, which routes speak of, and runs as any number of instances, each with a key of its
own. All times are wall clock milliseconds since the epoch.
"""

import re
from typing import Final

from msgspec import Struct, field

#: What a connector may be called: as everything that configurations name.
NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}", re.ASCII)
INSTANCE: Final = re.compile(r"[a-z2-7]{13}", re.ASCII)

#: The kind of its certificates in their SPIFFE IDs, `spiffe://TRUST-DOMAIN/connector/NAME/INSTANCE`.
KIND: Final = "connector"

#: The built-in trust bundle of connectors, and who vouches for them in locks and records.
BUNDLE: Final = "connectors"


class Connector(Struct, frozen=True):
    """An enrolled instance of a connector. Record kind "connector", key NAME/INSTANCE."""

    name: str
    instance: str
    spki: str  # lower-case hex SHA-256 of its key's SubjectPublicKeyInfo
    jwk: dict[str, str] = field(default_factory=dict)  # public key, EC P-256 (RFC 7517)
    enrolled_at: int = 0
    renewed_at: int = 0  # 0 = never
    certificates: dict[str, int] = field(default_factory=dict)  # fingerprint -> end, as long as they last
    revoked_at: int = 0
    revoked_by: str = ""

    @property
    def key(self) -> str:
        """Where it is stored, and how people write it: NAME/INSTANCE."""
        return f"{self.name}/{self.instance}"

    @property
    def signer(self) -> str:
        """Its name in what it signs, where a slash has no place: NAME:INSTANCE."""
        return f"{self.name}:{self.instance}"


def connector_of(spiffe_id: str) -> tuple[str, str] | None:
    """Return name and instance of `spiffe://TRUST-DOMAIN/connector/NAME/INSTANCE`, None for another ID."""
    scheme, _, rest = spiffe_id.partition("://")
    parts = rest.split("/")
    if scheme != "spiffe" or len(parts) != 4 or parts[1] != KIND:
        return None
    return (parts[2], parts[3]) if NAME.fullmatch(parts[2]) and INSTANCE.fullmatch(parts[3]) else None


def signer_of(text: str) -> tuple[str, str] | None:
    """Return name and instance of NAME:INSTANCE, None for anything else."""
    name, _, instance = text.partition(":")
    return (name, instance) if NAME.fullmatch(name) and INSTANCE.fullmatch(instance) else None
