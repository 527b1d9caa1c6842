"""WebSocket (RFC 6455) as far as a proxy needs it: the handshake, frame boundaries, a closing frame.

`gateway.upgrade` uses it. Messages are never looked into.
"""

import base64
import binascii
import hashlib
from collections.abc import Mapping
from typing import Final

from ztproxy.wire import fields

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
POLICY_VIOLATION: Final = 1008
GOING_AWAY: Final = 1001
_CLOSE: Final = 8  # opcode


def is_handshake(method: str, body: int, notes: Mapping[int, bytes]) -> bool:
    """Tell whether a request that upgrades to "websocket" keeps to RFC 6455 section 4.1."""
    key = notes.get(fields.WEBSOCKET_KEY, b"")
    try:
        nonce = base64.b64decode(key, validate=True)
    except binascii.Error:
        return False
    return method == "GET" and body == 0 and len(nonce) == 16 and notes.get(fields.WEBSOCKET_VERSION) == b"13"


def accepts(key: bytes, notes: Mapping[int, bytes]) -> bool:
    """Tell whether a 101 response answers the handshake that was made with `key`."""
    return notes.get(fields.WEBSOCKET_ACCEPT) == accept_of(key)


def accept_of(key: bytes) -> bytes:
    """Return the Sec-WebSocket-Accept for a key."""
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


def close_frame(code: int, reason: str) -> bytes:
    """Return an unmasked close frame, as a server sends it. The reason is cut at 123 bytes of UTF-8."""
    text = reason.encode()[:123].decode(errors="ignore").encode()
    payload = code.to_bytes(2, "big") + text
    return bytes((0x88, len(payload))) + payload


class FrameTracker:
    """Knows whether the bytes so far end on a frame boundary, and whether a close frame was among them."""

    __slots__ = ("_head", "_left", "_lost", "closing")

    def __init__(self) -> None:
        self._head = b""
        self._left = 0
        self._lost = False
        self.closing = False

    @property
    def at_boundary(self) -> bool:
        """Tell whether a frame of ours could follow now."""
        return not (self._left or self._head or self._lost)

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        at = 0
        while at < len(data) and not self._lost:
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
                at += step
            else:
                at = self._head_at(data, at)

    def _head_at(self, data: bytes, at: int) -> int:
        have = len(self._head)
        head = self._head + data[at : at + 14 - have]
        size = _head_size(head)
        if len(head) < size:
            self._head = head
            return len(data)
        self._head = b""
        self._left = _payload_size(head)
        self.closing = self.closing or head[0] & 0x0F == _CLOSE
        self._lost = self._left >= 1 << 63
        return at + size - have


def _head_size(head: bytes) -> int:
    """Return how long the frame head is that begins with these bytes (section 5.2)."""
    if len(head) < 2:
        return 2
    extended = {126: 2, 127: 8}.get(head[1] & 0x7F, 0)
    return 2 + extended + (4 if head[1] & 0x80 else 0)


def _payload_size(head: bytes) -> int:
    short = head[1] & 0x7F
    if short < 126:
        return short
    return int.from_bytes(head[2:4] if short == 126 else head[2:10], "big")
