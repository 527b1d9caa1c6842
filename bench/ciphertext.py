"""Takes a body off its socket without decrypting it: python -m bench.ciphertext PORT PATH SIZE

A client that decrypts costs about as much CPU as a server that encrypts, and in life has a machine of its
own. This one shakes hands, asks, and reads the head of the answer like any other; what comes behind that it
counts and has the kernel drop (MSG_TRUNC, tcp(7)), until there are as many bytes as the body takes in full
records; of less full ones a thousandth may then be missing. Prints the seconds from the question to there.
What it can not see is a wrong byte. `bench.connector` runs it.
"""

import socket
import ssl
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from http.client import parse_headers
from io import BytesIO
from typing import Final, TypeVar

from bench.ground import COOKIE, HOST

T = TypeVar("T")

#: Bytes of a full record, and what TLS 1.3 adds to it: header, type and tag.
RECORD: Final = 16 << 10
ADDED: Final = 22
#: Bytes that are taken at once.
CHUNK: Final = 1 << 20
#: Seconds without a byte after which none is expected any more.
PAUSE: Final = 0.1


class Incomplete(Exception):
    """The answer is not the one that was asked for, or has ended early."""


class Client:
    """One connection with TLS to a port of loopback, for one question."""

    def __init__(self, port: int) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl._create_unverified_context()
        self._tls = context.wrap_bio(self._in, self._out, server_hostname=HOST)
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._do(self._tls.do_handshake)
        self._socket.sendall(self._out.read())

    def ask(self, path: str) -> tuple[bytes, int]:
        """Return the head of the answer, and how many bytes of the body have been decrypted with it."""
        question = f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nCookie: __Host-ztproxy={COOKIE}\r\n"
        self._tls.write(f"{question}Accept: */*\r\n\r\n".encode("ascii"))
        self._socket.sendall(self._out.read())
        seen = b""
        while b"\r\n\r\n" not in seen:
            seen += self._do(lambda: self._tls.read(RECORD))
        head, _, body = seen.partition(b"\r\n\r\n")
        return head, len(body)

    def drop(self, count: int) -> None:
        """Take so many bytes, and decrypt none of them. Raises Incomplete."""
        buffer = bytearray(CHUNK)
        count -= self._in.pending
        while count > 0:
            taken = self._socket.recv_into(buffer, min(CHUNK, count), socket.MSG_TRUNC)
            if not taken:
                raise Incomplete(f"closed {count} bytes before the end")
            count -= taken

    def rest(self) -> int:
        """Return how many bytes come all the same."""
        self._socket.settimeout(PAUSE)
        rest = 0
        with suppress(TimeoutError):
            while taken := len(self._socket.recv(CHUNK)):
                rest += taken
        return rest

    def close(self) -> None:
        """End it."""
        self._socket.close()

    def _do(self, what: Callable[[], T]) -> T:
        """Do something with TLS, with as many bytes from the other side as that takes."""
        while True:
            try:
                return what()
            except ssl.SSLWantReadError:
                self._socket.sendall(self._out.read())
                data = self._socket.recv(RECORD)
                if not data:
                    raise Incomplete("closed before the answer began") from None
                self._in.write(data)


def download(port: int, path: str, size: int) -> float:
    """Return the seconds that a body of so many bytes takes. Raises Incomplete."""
    client = Client(port)
    try:
        begin = time.monotonic()
        head, decrypted = client.ask(path)
        left = size - decrypted
        client.drop(left + left * ADDED // RECORD)
        seconds = time.monotonic() - begin
        rest = client.rest()
    finally:
        client.close()
    status, _, fields = head.partition(b"\r\n")
    length = parse_headers(BytesIO(fields + b"\r\n\r\n")).get("Content-Length")
    if status.split()[1] != b"200" or length != str(size):
        raise Incomplete(f"{status!r} with a body of {length} bytes instead of {size}")
    if rest > RECORD + size // 1000:
        raise Incomplete(f"{rest} bytes were still to come: records are not full")
    return seconds


if __name__ == "__main__":
    print(download(int(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
