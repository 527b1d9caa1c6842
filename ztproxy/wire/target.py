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
_DELIMITERS: Final = frozenset(b"%/\\;\x7f") | frozenset(range(0x20))
_NEVER: Final = _UNRESERVED | _DELIMITERS

_MARKS: Final = ((b"#", "fragment"), (b"\\", "backslash"), (b";", "semicolon"), (b"//", "empty-segment"))
_DOTS: Final = re.compile(rb"/\.{1,2}(?:/|\Z)").search

_URL: Final = re.compile(rb"([A-Za-z][A-Za-z0-9+.-]{0,30})://([^/?#]*)(.*)").fullmatch

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


def in_origin_form(target: bytes, method: bytes, host: tuple[str, str]) -> tuple[bytes, str]:
    """Return a target that is no path as one, and what is wrong with it (of wire.flaws) or "".

    A URL has to name https and the very authority that Host names (`host`, from `host_of`): who reads the one
    and who reads the other must not come to different hosts (RFC 9112 section 3.2.2).
    """
    if target == b"*":
        return target, "" if method == b"OPTIONS" else "target-form"
    found = _URL(target)
    if found is None:
        return target, "target-form"
    if found[1].lower() != b"https" or host_of(found[2]) != host:
        return target, "other-authority"
    path = found[3]
    if not path and method == b"OPTIONS":
        return b"*", ""  # section 3.2.4
    return path if path.startswith(b"/") else b"/" + path, ""


def flaw_of(target: bytes) -> str:
    """Return what makes an origin-form target ambiguous, as a word of `wire.flaws`."""
    path = target.partition(b"?")[0]
    for mark, flaw in _MARKS:
        if mark in target if mark == b"#" else mark in path:
            return flaw
    if b"%" in path and not _codes_are_normal(path):
        return _flaw_of_codes(path)
    return "dot-segment" if _DOTS(path) else "odd-character"


def _flaw_of_codes(path: bytes) -> str:
    codes = re.findall(rb"%([0-9A-Fa-f]{0,2})", path)
    if all(len(code) == 2 for code in codes):
        if any(int(code, 16) in _DELIMITERS for code in codes):
            return "encoded-delimiter"
        if all(code == code.upper() and int(code, 16) not in _UNRESERVED for code in codes):
            return "not-utf-8"
    return "percent-code"


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
