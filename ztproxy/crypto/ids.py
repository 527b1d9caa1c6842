"""Opaque identifiers, bearer values and one-time codes, made of entropy that the caller passes in.

Called wherever something new gets a name. Bearer values are stored as `handle_digest` only.
"""

import base64
import hashlib
import re
from collections.abc import Callable
from typing import Final

from ztproxy.crypto.encoding import encode_base64url

#: Returns that many random bytes: `net.clock.entropy`.
Entropy = Callable[[int], bytes]

SESSION_PREFIX: Final = "ses_"
DEVICE_PREFIX: Final = "dev_"
LOCK_PREFIX: Final = "lck_"

_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_CODE_CHARACTERS: Final = 12  # of five bits: 60 bits
_CODE: Final = re.compile(f"[{_CROCKFORD}]{{{_CODE_CHARACTERS}}}")
_LOOK_ALIKES: Final = str.maketrans({"I": "1", "L": "1", "O": "0", "-": None, " ": None})
_DEVICE_ID: Final = re.compile(r"dev_[a-z2-7]{26}", re.ASCII)


def new_session_id(entropy: Entropy) -> str:
    """Return "ses_" and 26 base32 characters (128 bits); public."""
    return SESSION_PREFIX + _base32(entropy(16))


def new_device_id(entropy: Entropy) -> str:
    """Return "dev_" and 26 base32 characters (128 bits); public."""
    return DEVICE_PREFIX + _base32(entropy(16))


def new_lock_id(entropy: Entropy) -> str:
    """Return "lck_" and 26 base32 characters (128 bits); public."""
    return LOCK_PREFIX + _base32(entropy(16))


def new_instance(entropy: Entropy) -> str:
    """Return 13 base32 characters (64 bits) that tell one instance of a connector from another; public."""
    return _base32(entropy(8))


class RequestIds:
    """Request ids, each 32 hex digits of entropy of its own, drawn in blocks: one system call serves many."""

    __slots__ = ("_block", "_entropy", "_next")

    SIZE: Final = 32 * 256  # hex digits of a block

    def __init__(self, entropy: Entropy) -> None:
        self._entropy = entropy
        self._block = ""
        self._next = 0

    def new(self) -> str:
        """Return a new id."""
        start = self._next
        if start >= len(self._block):
            self._block, start = self._entropy(self.SIZE // 2).hex(), 0
        self._next = end = start + 32
        return self._block[start:end]


def is_device_id(text: str) -> bool:
    """Tell whether a text has the form of a device id."""
    return _DEVICE_ID.fullmatch(text) is not None


def new_token(entropy: Entropy) -> str:
    """Return a bearer value: 43 characters of base64url (256 bits)."""
    return encode_base64url(entropy(32))


def handle_digest(value: str) -> str:
    """Return what is stored of a bearer value: the lower-case hex SHA-256 of its text."""
    return hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()


def new_code(entropy: Entropy) -> str:
    """Return a one-time code for people, "XXXX-XXXX-XXXX" (60 bits, Crockford base32)."""
    bits = int.from_bytes(entropy(8), "big")
    text = "".join(_CROCKFORD[bits >> 5 * index & 31] for index in range(_CODE_CHARACTERS))
    return "-".join(text[start : start + 4] for start in range(0, _CODE_CHARACTERS, 4))


def normal_code(text: str) -> str | None:
    """Return the 12 characters of a code however a person typed it; None when it is no code."""
    if len(text) > 64 or not text.isascii():
        return None
    code = text.strip().upper().translate(_LOOK_ALIKES)
    return code if _CODE.fullmatch(code) else None


def _base32(data: bytes) -> str:
    return base64.b32encode(data).rstrip(b"=").decode("ascii").lower()
