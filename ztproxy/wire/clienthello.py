"""The server name in a TLS ClientHello (RFC 8446 section 4.1.2, RFC 6066 section 3).

`net.listener` peeks at the first bytes of a connection with it, because the client certificate mode has to
be known before the handshake starts. Nothing else of the hello is believed or kept.
"""

import re
from typing import Final

LIMIT: Final = 16384  # bytes looked at
_HANDSHAKE: Final = 22
_CLIENT_HELLO: Final = 1
_SERVER_NAME: Final = 0

_NAME: Final = re.compile(
    rb"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
).fullmatch

#: TLS alert records: fatal, unrecognized_name (112); fatal, decode_error (50).
UNRECOGNIZED_NAME: Final = bytes((21, 3, 3, 0, 2, 2, 112))
DECODE_ERROR: Final = bytes((21, 3, 3, 0, 2, 2, 50))


class NotTls(Exception):
    """These bytes do not begin a TLS connection."""


class BadHello(Exception):
    """TLS, but not a ClientHello we can read."""


def server_name(data: bytes) -> str | None:
    """Return the lower-case server name, "" when none is given, None when more bytes are needed.

    Raises NotTls, BadHello.
    """
    message = _message(data)
    if message is None:
        if len(data) >= LIMIT:
            raise BadHello("too long")
        return None
    try:
        return _name_in(_extensions(message))
    except IndexError as short:
        raise BadHello("a length points outside") from short


def _message(data: bytes) -> bytes | None:
    """Join the fragments of the first handshake message, or None while it is incomplete."""
    message = b""
    at = 0
    while True:
        header = data[at : at + 5]
        if header[:1] not in (b"", b"\x16") or header[1:2] not in (b"", b"\x03"):
            raise NotTls
        if len(header) < 5:
            return None
        size = int.from_bytes(header[3:5], "big")
        if not 0 < size <= LIMIT:
            raise NotTls
        message += data[at + 5 : at + 5 + size]
        if message[0:1] not in (b"", bytes((_CLIENT_HELLO,))):
            raise BadHello("not a ClientHello")
        if len(message) >= 4:
            whole = 4 + int.from_bytes(message[1:4], "big")
            if whole > LIMIT:
                raise BadHello("too long")
            if len(message) >= whole:
                return message[4:whole]
        if len(data) < at + 5 + size:
            return None
        at += 5 + size


def _extensions(hello: bytes) -> bytes:
    at = 2 + 32  # legacy version, random
    for width in (1, 2, 1):  # session id, cipher suites, compression methods
        _, at = _vector(hello, at, width)
    if at == len(hello):
        return b""
    extensions, end = _vector(hello, at, 2)
    if end != len(hello):
        raise BadHello("trailing bytes")
    return extensions


def _name_in(extensions: bytes) -> str:
    at = 0
    name: str | None = None
    while at < len(extensions):
        kind = int.from_bytes(_take(extensions, at, 2), "big")
        body, at = _vector(extensions, at + 2, 2)
        if kind != _SERVER_NAME:
            continue
        if name is not None:
            raise BadHello("two server name extensions")
        name = _host_name(body)
    return name or ""


def _host_name(body: bytes) -> str:
    entries, end = _vector(body, 0, 2)
    if end != len(body) or _take(entries, 0, 1) != b"\x00":
        raise BadHello("malformed server name")
    host, end = _vector(entries, 1, 2)
    if end != len(entries) or len(host) > 253 or not _NAME(host):
        raise BadHello("malformed server name")
    return host.decode("ascii").lower()


def _take(data: bytes, at: int, size: int) -> bytes:
    piece = data[at : at + size]
    if len(piece) < size:
        raise IndexError
    return piece


def _vector(data: bytes, at: int, width: int) -> tuple[bytes, int]:
    """Return a length-prefixed vector and where it ends."""
    size = int.from_bytes(_take(data, at, width), "big")
    return _take(data, at + width, size), at + width + size
