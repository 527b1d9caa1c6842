"""Sealed values: AES-256-GCM under the first of several keys, bound to the place they belong to.

Called by `store.sealed`, which supplies nonces; pure. A sealed value is `version, key id, nonce, ciphertext`:
moved to another place, changed, or opened with another key it does not open at all.
"""

import base64
import binascii
import hashlib
from collections.abc import Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12  # random ones: NIST SP 800-38D section 8.3 allows 2^32 values under one key
_VERSION: Final = b"\x01"
_ID_BYTES: Final = 8
_HEAD: Final = len(_VERSION) + _ID_BYTES + NONCE_BYTES


class CannotOpen(Exception):
    """A sealed value that none of the keys opens: another key sealed it, or it was tampered with."""


def parse_key(text: str) -> bytes:
    """Return the key that base64 text stands for. Raises ValueError, whose words never hold the text."""
    try:
        key = base64.b64decode(text.strip().encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise ValueError("not base64") from None
    if len(key) != KEY_BYTES:
        raise ValueError(f"{len(key)} bytes instead of {KEY_BYTES}")
    return key


class Envelope:
    """Seals with the first key, opens with each."""

    __slots__ = ("_ciphers", "_first")

    def __init__(self, keys: Sequence[bytes]) -> None:
        """Take one or more keys of KEY_BYTES bytes."""
        self._ciphers = {_key_id(key): AESGCM(key) for key in keys}
        self._first = _key_id(keys[0])

    def seal(self, value: bytes, place: bytes, nonce: bytes) -> bytes:
        """Return the value sealed for `place`, with NONCE_BYTES bytes that were never used before."""
        head = _VERSION + self._first + nonce
        return head + self._ciphers[self._first].encrypt(nonce, value, head[: -len(nonce)] + place)

    def open(self, sealed: bytes, place: bytes) -> bytes:
        """Return the value that was sealed for `place`. Raises CannotOpen."""
        head, nonce = sealed[: _HEAD - NONCE_BYTES], sealed[_HEAD - NONCE_BYTES : _HEAD]
        cipher = self._ciphers.get(head[1:])
        if head[:1] != _VERSION or cipher is None or len(nonce) != NONCE_BYTES:
            raise CannotOpen("sealed with a key that is not here")
        try:
            return cipher.decrypt(nonce, sealed[_HEAD:], head + place)
        except InvalidTag:
            raise CannotOpen("changed, or moved from another place") from None

    def is_current(self, sealed: bytes) -> bool:
        """Tell whether the first key sealed it."""
        return sealed[len(_VERSION) : len(_VERSION) + _ID_BYTES] == self._first


def _key_id(key: bytes) -> bytes:
    """Name a key without telling anything about it."""
    return hashlib.sha256(b"ztproxy sealing key\0" + key).digest()[:_ID_BYTES]
