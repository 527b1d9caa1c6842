"""SPIFFE IDs: `spiffe://TRUST-DOMAIN/PATH`, read strictly.

Called by `crypto.certificates`, `config` and whoever names a workload. Upper-case trust domains are refused
instead of folded: two spellings of one identity are one too many. It must never repair what it reads.
"""

import re
from typing import Final

from msgspec import Struct

#: SPIFFE-ID section 2.3: the whole ID and the trust domain are bounded, in bytes.
MAX_ID: Final = 2048
MAX_TRUST_DOMAIN: Final = 255

_SCHEME: Final = "spiffe://"
_TRUST_DOMAIN: Final = re.compile(r"[a-z0-9._-]+", re.ASCII)
_SEGMENT: Final = re.compile(r"[a-zA-Z0-9._-]+", re.ASCII)


class SpiffeError(ValueError):
    """Not a SPIFFE ID; the message says why."""


class SpiffeId(Struct, frozen=True, order=True):
    """A SPIFFE ID in its parts. `path` is "" for the trust domain itself, else starts with a slash."""

    trust_domain: str
    path: str = ""

    def __str__(self) -> str:
        return f"{_SCHEME}{self.trust_domain}{self.path}"


def parse_id(text: str) -> SpiffeId:
    """Return the parts of a SPIFFE ID. Raises SpiffeError (SPIFFE-ID section 2)."""
    if len(text) > MAX_ID:
        raise SpiffeError(f"longer than {MAX_ID} bytes")
    if not text.startswith(_SCHEME):
        raise SpiffeError("does not start with spiffe://")
    trust_domain, slash, path = text[len(_SCHEME) :].partition("/")
    parse_trust_domain(trust_domain)
    if slash:
        _check_path(path)
    return SpiffeId(trust_domain=trust_domain, path=slash + path)


def parse_trust_domain(name: str) -> str:
    """Return a valid trust domain name unchanged. Raises SpiffeError."""
    if len(name) > MAX_TRUST_DOMAIN:
        raise SpiffeError(f"trust domain is longer than {MAX_TRUST_DOMAIN} bytes")
    if not _TRUST_DOMAIN.fullmatch(name):
        raise SpiffeError("trust domain is not made of a-z 0-9 . _ -")
    return name


def make_id(trust_domain: str, *segments: str) -> SpiffeId:
    """Return the ID of a path given by its segments. Raises SpiffeError."""
    return parse_id(_SCHEME + "/".join((trust_domain, *segments)))


def _check_path(path: str) -> None:
    for segment in path.split("/"):
        if not segment:
            raise SpiffeError("path has an empty segment or a trailing slash")
        if segment in (".", ".."):
            raise SpiffeError("path has a dot segment")
        if not _SEGMENT.fullmatch(segment):
            raise SpiffeError("path is not made of a-z A-Z 0-9 . _ - segments")
