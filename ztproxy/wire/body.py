"""Message bodies (RFC 9112 sections 6 and 7), read as they come and never held.

`gateway.connection` and `upstream.connection` feed them. Every reader has the same two attributes: `done`
and `received` (bytes of content so far). `feed` returns (bytes to pass on, bytes after the body). Chunked
bodies are framed anew: chunk extensions, in which other readers may see other things, end here, and so do
trailers unless the reader is told which ones may pass.
"""

import re
from collections.abc import Callable
from typing import Final

from ztproxy.model.native import mypyc_attr
from ztproxy.wire import flaws
from ztproxy.wire.heads import FIELD_LINE

_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})((?:;[\t\x20-\x7e\x80-\xff]*)?)\r\n").fullmatch
_is_field: Final = re.compile(FIELD_LINE).fullmatch

LINE_LIMIT: Final = 4096  # one size line or trailer line
SURPLUS_LIMIT: Final = 16384  # all extensions and trailers of one body

_SIZE, _DATA, _DATA_END, _TRAILERS, _BROKEN = range(5)


class BadBody(Exception):
    """The framing is broken; where the next message starts is unknown."""

    def __init__(self, flaw: str) -> None:
        super().__init__(flaws.FLAWS[flaw][1])
        self.flaw = flaw  # of wire.flaws


@mypyc_attr(acyclic=True)
class LengthBody:
    """A body of a known length."""

    __slots__ = ("_left", "done", "received")

    def __init__(self, length: int) -> None:
        self._left = length
        self.received = 0
        self.done = length == 0

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Take bytes; return (bytes to pass on, bytes after the body)."""
        left = self._left
        size = len(data)
        if size < left:
            self._left = left - size
            self.received += size
            return data, b""
        self._left = 0
        self.received += left
        self.done = True
        return (data, b"") if size == left else (data[:left], data[left:])


class ChunkedBody:
    """A chunked body. With `framed` it is passed on as clean chunks, else as bare content.

    `trails` says which names may pass as trailers, None: none. Bare content has none.
    """

    __slots__ = (
        "_flaw",
        "_framed",
        "_left",
        "_line",
        "_stage",
        "_surplus",
        "_trailers",
        "_trails",
        "done",
        "received",
    )

    def __init__(self, *, framed: bool = True, trails: Callable[[bytes], bool] | None = None) -> None:
        self._framed = framed
        self._trails = trails
        self._trailers = b""
        self._flaw = ""
        self._stage = _SIZE
        self._line = b""
        self._left = 0
        self._surplus = 0
        self.received = 0
        self.done = False

    def drop_trailers(self) -> None:
        """Let no trailers pass."""
        self._trails = None

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Take bytes; return (bytes to pass on, bytes after the body). Raises BadBody."""
        if self._stage == _BROKEN:
            raise BadBody(self._flaw)
        out: list[bytes] = []
        at = 0
        end = len(data)
        while at < end and not self.done:
            if self._stage == _DATA:
                piece = data[at : at + self._left]
                out.append(piece)
                at += len(piece)
                self._took(len(piece), out)
            else:
                at = self._line_at(data, at, out)
        return b"".join(out), data[at:]

    def _took(self, size: int, out: list[bytes]) -> None:
        self.received += size
        self._left -= size
        if self._left == 0:
            self._stage = _DATA_END
            if self._framed:
                out.append(b"\r\n")

    def _line_at(self, data: bytes, at: int, out: list[bytes]) -> int:
        """Take what belongs to the current line; act on it when it is complete; return where it ended."""
        newline = data.find(b"\n", at)
        stop = len(data) if newline < 0 else newline + 1
        line = self._line + data[at:stop]
        if len(line) > LINE_LIMIT:
            raise self._broken("long-line")
        if newline < 0:
            self._line = line
            return stop
        self._line = b""
        if self._stage == _SIZE:
            self._size(line, out)
        elif self._stage == _DATA_END:
            if line != b"\r\n":
                raise self._broken("chunk-end")
            self._stage = _SIZE
        elif self._stage == _TRAILERS:
            self._trailer(line, out)
        return stop

    def _broken(self, flaw: str) -> BadBody:
        """Note that nothing of what follows can be told apart any more."""
        self._stage = _BROKEN
        self._flaw = flaw
        return BadBody(flaw)

    def _size(self, line: bytes, out: list[bytes]) -> None:
        found = _SIZE_LINE(line)
        if found is None:
            raise self._broken("chunk-size")
        self._spend(len(found[2]))
        self._left = int(found[1], 16)
        if self._left == 0:
            self._stage = _TRAILERS
            return
        self._stage = _DATA
        if self._framed:
            out.append(b"%x\r\n" % self._left)

    def _trailer(self, line: bytes, out: list[bytes]) -> None:
        if line == b"\r\n":
            self.done = True
            if self._framed:
                out.append(b"0\r\n%b\r\n" % self._trailers)
            return
        if not _is_field(line):
            raise self._broken("trailer-line")
        self._spend(len(line))
        if self._trails is not None and self._trails(line.partition(b":")[0]):
            self._trailers += line

    def _spend(self, size: int) -> None:
        self._surplus += size
        if self._surplus > SURPLUS_LIMIT:
            raise self._broken("surplus")


class OpenBody:
    """A body that lasts until the sender closes. With `framed` it is passed on as chunks."""

    __slots__ = ("_framed", "done", "received")

    def __init__(self, *, framed: bool = True) -> None:
        self._framed = framed
        self.received = 0
        self.done = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Take bytes; return (bytes to pass on, b"")."""
        self.received += len(data)
        return (b"%x\r\n%b\r\n" % (len(data), data) if self._framed and data else data), b""

    def close(self) -> bytes:
        """Say that the sender has closed; return the last bytes to pass on."""
        self.done = True
        return b"0\r\n\r\n" if self._framed else b""


Body = LengthBody | ChunkedBody | OpenBody
