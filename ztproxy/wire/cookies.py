"""Our cookies among those of the applications.

`wire.http1` uses it: requests lose our cookies before an application sees them, and no application can set
one of our names. The value of our own cookie ends here: everybody else knows its digest only. Every other
byte of a cookie line stays as it was.
"""

import hashlib
import re
from typing import Final, NamedTuple

_NAME: Final = b"__Host-ztproxy"
# A cookie of ours in a Cookie value, with the separator before it. Spaces around the name are no part of a
# name a browser would send; they are taken away with it all the same.
_OURS: Final = re.compile(rb"(?:^|;)[ \t]*(__Host-ztproxy(?:-flow)?)[ \t]*(?:=([^;]*))?(?=;|\Z)")
_HANDLE: Final = re.compile(rb"[A-Za-z0-9_-]{43}").fullmatch

# Case, prefixes, quotes, and nameless cookies: "Set-Cookie: =__Host-ztproxy=x" comes back from a browser as
# "Cookie: __Host-ztproxy=x".
_SHADOWS: Final = re.compile(
    rb"[\s=\"]*(?:__(?:host|secure|http|host-http)-)*ztproxy(?:-flow)?[\s\"]*(?:[=;,]|$)", re.IGNORECASE
).match


class Cookies(NamedTuple):
    """The cookies of one request."""

    handle: str | None  # lower-case hex SHA-256 of our session cookie's value, if that is well formed
    rest: bytes  # header lines without our cookies, each ended by CRLF
    conflict: bool  # one of our names came twice


def split(values: list[bytes]) -> Cookies:
    """Separate our cookies from the others. `values` are the values of all Cookie lines."""
    found: dict[bytes, bytes] = {}
    conflict = False
    rest = b""
    for value in values:
        if _NAME in value:
            pieces = _OURS.split(value)  # other, name, content, other, name, content, ..., other
            for name, content in zip(pieces[1::3], pieces[2::3], strict=True):
                conflict = conflict or name in found
                found[name] = (content or b"").strip(b" \t")
            value = b"".join(pieces[::3]).lstrip(b"; \t")
        if value:
            rest += b"Cookie: %b\r\n" % value
    handle = found.get(_NAME, b"")
    return Cookies(hashlib.sha256(handle).hexdigest() if _HANDLE(handle) else None, rest, conflict)


def shadows(set_cookie: bytes) -> bool:
    """Tell whether a Set-Cookie value would set, or be sent back as, a cookie of our names."""
    return _SHADOWS(set_cookie) is not None
