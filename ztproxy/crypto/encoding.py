"""base64url and JSON read exactly: one text per value, one value per text.

Called by `crypto.jose` and the readers of signed documents. Lax decoders accept several spellings of one
signature or two values for one claim, and what one reader accepts another one understands differently.
"""

import base64
import json
import re
from typing import Any, Final

_ALPHABET: Final = re.compile(r"[A-Za-z0-9_-]*", re.ASCII)
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_write: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


class EncodingError(ValueError):
    """Not exactly the encoding asked for. The message never quotes the input."""


def encode_base64url(data: bytes) -> str:
    """Return base64url without padding (RFC 7515 section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def decode_base64url(text: str) -> bytes:
    """Return the bytes of base64url without padding; no other character, no trailing bits set.

    Raises EncodingError.
    """
    if not _ALPHABET.fullmatch(text) or len(text) % 4 == 1:
        raise EncodingError("not base64url without padding")
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if encode_base64url(data) != text:
        raise EncodingError("base64url with unused bits set")
    return data


def read_object(data: bytes) -> dict[str, Any]:
    """Return a JSON object: UTF-8, no duplicate names, no NaN, no lone surrogates. Raises EncodingError."""
    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=_no_duplicates, parse_constant=_no_constants
        )
        if _SURROGATE.search(data):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise EncodingError("not strict JSON") from error
    if not isinstance(value, dict):
        raise EncodingError("not a JSON object")
    return value


def write_object(value: dict[str, Any]) -> bytes:
    """Return compact JSON. Raises ValueError for what JSON can not say."""
    return _write(value).encode("utf-8")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise EncodingError("duplicate name in a JSON object")
    return found


def _no_constants(name: str) -> Any:
    raise EncodingError("not a JSON number")
