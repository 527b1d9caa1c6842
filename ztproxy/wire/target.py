"""Request targets and hosts that can be read in one way only.

`wire.http1` asks for every request. What we authorize must be exactly what the upstream understands, so a
path that two programs may read differently is refused, never rewritten.
"""

import re
from functools import lru_cache
from typing import Final
from urllib.parse import unquote_to_bytes

# pchar of RFC 3986 without ";" (parameters: some servers cut there), with what browsers leave as it is: []^|
_SEGMENT: Final = rb"(?!\.{1,2}(?:[/?]|\Z))[A-Za-z0-9\-._~!$&'()*+,=:@|^\[\]]+"
_QUERY: Final = rb"(?:\?[!\"$-~]*)?"  # no "#": a fragment never leaves a browser
_PLAIN: Final = re.compile(rb"/(?:" + _SEGMENT + rb"(?:/" + _SEGMENT + rb")*/?)?" + _QUERY).fullmatch

# Percent codes in normal form (RFC 3986 section 6.2.2): upper-case, and never for what needs no code.
# Also refused: "/" "\" ";" and control characters in disguise, and double encodings (%2541).
_CODE: Final = re.compile(rb"%(?:25(?![0-9A-Fa-f]{2})|([0-9A-F]{2}))").match
_UNRESERVED: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_NEVER: Final = _UNRESERVED | frozenset(b"%/\\;\x7f") | frozenset(range(0x20))

_LABEL: Final = rb"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST: Final = re.compile(
    rb"(" + _LABEL + rb"(?:\." + _LABEL + rb")*|\[[0-9A-Fa-f:.]{2,45}\])(?::([1-9][0-9]{0,4}))?"
).fullmatch


def is_plain(target: bytes) -> bool:
    """Tell whether an origin-form target can be read in one way only."""
    if _PLAIN(target):
        return True
    path, mark, query = target.partition(b"?")
    if b"%" not in path:
        return False
    return _codes_are_normal(path) and _PLAIN(_blank(path) + mark + query) is not None


def _codes_are_normal(path: bytes) -> bool:
    at = path.find(b"%")
    while at >= 0:
        code = _CODE(path, at)
        if code is None or (code[1] and int(code[1], 16) in _NEVER):
            return False
        at = path.find(b"%", code.end())
    try:
        unquote_to_bytes(path).decode()  # overlong UTF-8 hides slashes and dots (%C0%AF)
    except UnicodeDecodeError:
        return False
    return True


def _blank(path: bytes) -> bytes:
    """Put a harmless letter where a checked percent code stands."""
    return re.sub(rb"%[0-9A-F]{2}", b"x", path)


@lru_cache(1024)
def host_of(value: bytes) -> tuple[str, str] | None:
    """Split a Host value into (lower-case host, authority without the default port); None if invalid."""
    found = _HOST(value) if len(value) <= 260 else None
    if found is None or len(found[1]) > 253 or int(found[2] or 0) > 65535:
        return None
    host = found[1].decode("ascii").lower()
    port = found[2]
    return host, host if port is None or port == b"443" else f"{host}:{int(port)}"
