"""Our cookies among those of the applications.

`wire.http1` uses it: requests lose our cookies before an application sees them, and no application can set
one of our names. Every other byte of a cookie line stays as it was.
"""

import re
from typing import Final, NamedTuple

SESSION: Final = b"__Host-ztproxy"
FLOW: Final = b"__Host-ztproxy-flow"
_OURS: Final = frozenset({SESSION, FLOW})
_HANDLE: Final = re.compile(rb"[A-Za-z0-9_-]{43}").fullmatch

# Case, prefixes, quotes, and nameless cookies: "Set-Cookie: =__Host-ztproxy=x" comes back from a browser as
# "Cookie: __Host-ztproxy=x".
_SHADOWS: Final = re.compile(
    rb"[\s=\"]*(?:__(?:host|secure|http|host-http)-)*ztproxy(?:-flow)?[\s\"]*(?:[=;,]|$)", re.IGNORECASE
).match


class Cookies(NamedTuple):
    """The cookies of one request."""

    handle: str | None  # value of our session cookie, if it is well formed
    rest: bytes  # header lines without our cookies, each ended by CRLF
    conflict: bool  # one of our names came twice


def split(values: list[bytes]) -> Cookies:
    """Separate our cookies from the others. `values` are the values of all Cookie lines."""
    handle: bytes | None = None
    seen: list[bytes] = []
    rest = b""
    for value in values:
        kept = []
        for piece in value.split(b";"):
            name, _, content = piece.strip(b" \t").partition(b"=")
            name = name.strip(b" \t")
            if name not in _OURS:
                kept.append(piece)
                continue
            seen.append(name)
            if name == SESSION:
                handle = content.strip(b" \t")
        line = b";".join(kept).strip(b" \t")
        if line:
            rest += b"Cookie: " + line + b"\r\n"
    good = handle is not None and _HANDLE(handle)
    return Cookies(
        handle.decode("ascii") if handle is not None and good else None, rest, len(seen) != len(set(seen))
    )


def shadows(set_cookie: bytes) -> bool:
    """Tell whether a Set-Cookie value would set, or be sent back as, a cookie of our names."""
    return _SHADOWS(set_cookie) is not None
