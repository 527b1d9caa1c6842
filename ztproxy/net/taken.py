"""How much the other end of a connection has really taken: what its kernel acknowledged.

Asked by the gateway about clients that are slower than their application. Our own buffers do not tell: the
kernel takes more from us only in large steps, minutes apart when the other end is slow.
"""

import asyncio
import socket
import struct
from typing import Final

_TCP_INFO_SIZE: Final = 128
_ACKED_AT: Final = 120  # tcpi_bytes_acked of struct tcp_info (linux/tcp.h, since Linux 4.1)
_ACKED: Final = struct.Struct("=Q")


def taken(transport: asyncio.WriteTransport) -> int:
    """Return bytes taken so far; only differences mean something."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        try:
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
        except OSError:  # not TCP, or closed
            info = b""
        if len(info) == _TCP_INFO_SIZE:
            acked: int = _ACKED.unpack_from(info, _ACKED_AT)[0]
            return acked
    return -transport.get_write_buffer_size()
