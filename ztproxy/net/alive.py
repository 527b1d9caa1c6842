"""Noticing that the other end of a connection is gone when nothing says so: a cut link, a machine that died.

Asked for by both ends of a connection that carries. The kernel does it, at no cost to us (tcp(7)).
"""

import asyncio
import socket
import struct
from typing import Final, cast

#: Seconds of silence until the kernel asks whether anybody is there, between further questions, and how many.
IDLE: Final = 5
INTERVAL: Final = 2
PROBES: Final = 3
#: Milliseconds that what was sent may stay unacknowledged.
UNACKNOWLEDGED: Final = 10_000

#: struct tcp_info (linux/tcp.h, since Linux 4.6): questions whether the other end is there that were not
#: answered, what is sent and not acknowledged, ms since anything was acknowledged, and bytes not sent.
_INFO: Final = struct.Struct("3x B 20x I 28x I 84x I")
#: Of those questions one may stay without an answer: kernels give two a second (tcp_invalid_ratelimit).
_IN_VAIN: Final = 2


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


def unheard(transport: asyncio.BaseTransport) -> int:
    """Return for how many ms nothing was acknowledged, while something waits for it: the link may be cut.

    0 when nothing waits, and where nobody can tell; 1 when something waits to be sent. That is so when the
    other end takes no more, and when our own end of the link is down: without a route nothing is sent that
    could stay unacknowledged. The kernel then asks for the other end again and again, which answers if it is
    there.
    """
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return 0
    try:
        told = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
    except OSError:  # it is closed already
        return 0
    if len(told) < _INFO.size:
        return 0
    asked, waiting, silence, unsent = cast("tuple[int, int, int, int]", _INFO.unpack(told))
    if waiting or asked >= _IN_VAIN:
        return max(1, silence)
    return 1 if unsent else 0
