"""Noticing that the other end of a connection is gone when nothing says so: a cut link, a machine that died.

Asked for by both ends of a connection that carries. The kernel does it, at no cost to us (tcp(7)).
"""

import asyncio
import socket
import struct
from typing import Final

#: Seconds of silence until the kernel asks whether anybody is there, between further questions, and how many.
IDLE: Final = 5
INTERVAL: Final = 2
PROBES: Final = 3
#: Milliseconds that what was sent may stay unacknowledged.
UNACKNOWLEDGED: Final = 10_000

#: struct tcp_info of Linux: what is sent and not acknowledged, and ms since anything was acknowledged.
_INFO: Final = struct.Struct("24x I 28x I")


def keep_alive(transport: asyncio.BaseTransport) -> None:
    """Have a connection end within about ten seconds when its other end does not answer."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, IDLE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, INTERVAL)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED)


def unheard(transport: asyncio.BaseTransport, milliseconds: int) -> bool:
    """Tell whether what was sent waits, and nothing was acknowledged for so long: the link may be cut.

    Ask when that long has passed since something was sent. False where nobody can tell.
    """
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    try:
        waiting, silence = _INFO.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size))
    except OSError:  # it is closed already
        return False
    return bool(waiting) and silence >= milliseconds
