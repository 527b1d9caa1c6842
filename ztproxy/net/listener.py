"""The listener: accepts, finds the server name, chooses the TLS context, shakes hands, counts.

`service` makes one per worker over a socket that the supervisor bound. Accepting is our own because the
client certificate mode depends on the server name, and Python can not change it once a handshake runs: the
ClientHello is peeked at and left in the socket. Everything is bounded before a byte is parsed.
"""

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

import aiofastnet

from ztproxy.model.request import Peer, TlsFacts
from ztproxy.net import pages
from ztproxy.net.certificates import classify, verified_chain
from ztproxy.net.clock import Clock
from ztproxy.net.sources import Source, Sources
from ztproxy.net.tls import ServerContexts
from ztproxy.net.wheel import Wheel
from ztproxy.wire import clienthello

BATCH: Final = 64  # accepted per turn of the loop
BACK_OFF: Final = 0.5  # seconds without accepting when the process or machine is out of something
#: Bytes the kernel may hold besides what is on the way. It would take megabytes for a client that reads
#: nothing, and we would encrypt them: a few hundred such clients cost all others seconds (tcp(7)).
UNSENT: Final = 128 << 10
_READ: Final = 256 << 10  # bytes of the buffer that every read of plain TCP takes and gives back
_RECORD: Final = 16 * 1024 + 64  # of TLS, of the largest size (RFC 8446 section 5.2), with its head


class _Buffers(NamedTuple):
    """What a connection keeps for TLS, in bytes. Pages that it never used cost nothing."""

    incoming: int
    outgoing: int


#: One record that comes, and four that go: each time they are full is a system call of ours and one or two of
#: the caller's, so with two downloads were a tenth slower. More of either make idle connections dear.
_OF_CALLERS: Final = _Buffers(_RECORD, 4 * _RECORD)
#: Connectors are few, and by one connection comes all that an application says: each record for itself would
#: be a read, a turn of ours and a write to the caller. With eight, a byte costs a quarter less than with one.
_OF_CONNECTORS: Final = _Buffers(8 * _RECORD, 8 * _RECORD)
#: Seconds for the last bytes of a connection, which is otherwise cut while they are still taken. Who does not
#: take them is given up sooner (gateway.crowd, net.splice).
_LAST: Final = 3600.0
_OUT_OF: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Tally(Protocol):
    """Counts of connections (telemetry.metrics)."""

    def connections_opened(self) -> None:
        """A connection was accepted."""

    def connections_closed(self) -> None:
        """An accepted connection is gone."""

    def handshake_failed(self, reason: str) -> None:
        """A connection ended before its first request could be read; `reason` is one of a few words."""

    def accepting_paused(self) -> None:
        """For a moment nobody is accepted: all sources together ask for too much."""


class PeerUnusable(Exception):
    """The handshake succeeded and the connection still must not be used."""


class Arrival:
    """An accepted connection: who it comes from, and the place it takes until it is gone."""

    __slots__ = ("_contexts", "_gone", "ip", "name", "port", "source")

    def __init__(
        self,
        source: Source,
        ip: str,
        port: int,
        name: str,
        contexts: ServerContexts,
        gone: Callable[[Source], None],
    ) -> None:
        self.source = source
        self.ip = ip
        self.port = port
        self.name = name
        self._contexts = contexts
        self._gone: Callable[[Source], None] | None = gone

    def peer(self, tls: ssl.SSLObject) -> Peer:
        """Return the other end, after the handshake. Raises PeerUnusable."""
        presented = tls.getpeercert(binary_form=True) is not None
        if presented and tls.session_reused:
            raise PeerUnusable  # it carries a certificate that was checked at another time
        chain = verified_chain(tls) if presented else []
        certificate = classify(chain, self._contexts.believed(self.name)) if presented else None
        facts = TlsFacts(version=tls.version() or "", sni=self.name, certificate=certificate)
        return Peer(ip=self.ip, port=self.port, tls=facts)

    def gone(self) -> None:
        """Give the place back. Further calls do nothing."""
        if self._gone is not None:
            gone, self._gone = self._gone, None
            gone(self.source)


class Listener:
    """Accepts on one socket. `contexts` may be replaced at any time and holds for later connections.

    `factory` makes the protocol of a connection; it must call `Arrival.gone` when the connection is lost.
    """

    def __init__(
        self,
        sock: socket.socket,
        contexts: ServerContexts,
        factory: Callable[[Arrival], asyncio.Protocol],
        *,
        wheel: Wheel,
        clock: Clock,
        tally: Tally,
        sources: Sources,
        handshake_timeout: float,
    ) -> None:
        self.contexts = contexts
        self.sources = sources
        self._sock = sock
        self._factory = factory
        self._wheel = wheel
        self._clock = clock
        self._tally = tally
        self._timeout = handshake_timeout
        self._hellos: set[_Hello] = set()
        self._handshakes: set[asyncio.Task[None]] = set()
        self._resume: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return self.sources.connections

    def start(self) -> None:
        """Accept from now on, on the running loop."""
        self._sock.setblocking(False)
        _keep_read_buffers_off_mmap()
        asyncio.get_running_loop().add_reader(self._sock, self._accept)

    def adopt(self, contexts: ServerContexts, handshake_timeout: float) -> None:
        """Let these hold for whoever is accepted from now on."""
        self.contexts = contexts
        self._timeout = handshake_timeout

    def drain(self) -> None:
        """Accept whoever waits, then no more. Handshakes under way go on."""
        self._accept()
        asyncio.get_running_loop().remove_reader(self._sock)
        if self._resume is not None:
            self._resume.cancel()

    def stop(self) -> None:
        """Accept no more and drop whoever has not finished the handshake. The socket stays open."""
        asyncio.get_running_loop().remove_reader(self._sock)
        if self._resume is not None:
            self._resume.cancel()
        self.drop_handshakes()

    def drop_handshakes(self) -> None:
        """Drop whoever has not finished the handshake."""
        for hello in list(self._hellos):
            hello.drop("stopping")
        for task in self._handshakes:
            task.cancel()

    # ------------------------------------------------------------------ accepting

    def _accept(self) -> None:
        for _ in range(BATCH):
            now = self._clock.monotonic()
            if wait := self.sources.wait(now):
                self._tally.accepting_paused()
                self._pause(wait)
                return
            try:
                sock, address = self._sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionError:
                continue
            except OSError as failed:
                self._tally.handshake_failed("accept")
                if failed.errno in _OUT_OF:
                    self._pause(BACK_OFF)
                return
            self._admit(sock, _ip_of(address), address[1], now)

    def _pause(self, seconds: float) -> None:
        """Leave who comes in the backlog. The socket stays readable, so looking on would be spinning."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._sock)
        self._resume = loop.call_later(seconds, self.start)

    def _admit(self, sock: socket.socket, ip: str, port: int, now: float) -> None:
        source = self.sources.admit(ip, now)
        if isinstance(source, str):
            self._tally.handshake_failed(source)
            sock.close()
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)
        self._tally.connections_opened()
        hello = _Hello(self, sock, source, ip, port)
        if source.delay:
            hello.look_in(source.delay)
        else:
            hello.look()

    def _gone(self, source: Source) -> None:
        self.sources.gone(source)
        self._tally.connections_closed()

    # ------------------------------------------------------------------ what hellos call

    def watch(self, hello: "_Hello") -> None:
        """Bound the time a hello may take."""
        hello.deadline = self._clock.monotonic() + self._timeout
        self._hellos.add(hello)
        self._wheel.add(hello)

    def forget(self, hello: "_Hello") -> None:
        """Stop watching a hello."""
        self._hellos.discard(hello)
        self._wheel.discard(hello)

    def failed(self, source: Source, reason: str) -> None:
        """Count a connection that ended before it was one."""
        self._tally.handshake_failed(reason)
        self.sources.greeted(source)
        self._gone(source)

    def greet(
        self, sock: socket.socket, source: Source, ip: str, port: int, name: str, context: ssl.SSLContext
    ) -> None:
        """Hand a connection with a known server name to TLS."""
        arrival = Arrival(source, ip, port, name, self.contexts, self._gone)
        task = asyncio.get_running_loop().create_task(self._handshake(sock, arrival, context))
        self._handshakes.add(task)
        task.add_done_callback(self._handshakes.discard)

    async def _handshake(self, sock: socket.socket, arrival: Arrival, context: ssl.SSLContext) -> None:
        reason = ""
        buffers = _OF_CONNECTORS if self.contexts.carries(arrival.name) else _OF_CALLERS
        _clean_for(buffers)
        try:
            await aiofastnet.connect_accepted_socket(
                asyncio.get_running_loop(),
                lambda: self._factory(arrival),
                sock,
                ssl=context,
                ssl_handshake_timeout=self._timeout,
                ssl_shutdown_timeout=_LAST,
                ssl_incoming_bio_size=buffers.incoming,
                ssl_outgoing_bio_size=buffers.outgoing,
            )
        except ssl.SSLError as refused:
            reason = "certificate" if "CERTIFICATE" in (refused.reason or "") else "protocol"
        except TimeoutError:
            reason = "timeout"
        except (OSError, EOFError):
            reason = "closed"
        except BaseException:  # we stop, or a fault of ours: either way the place is free again
            sock.close()
            arrival.gone()
            raise
        finally:
            self.sources.greeted(arrival.source)
        if reason:
            self._tally.handshake_failed(reason)
            arrival.gone()


class _Hello:
    """A connection that has not said yet which server it wants."""

    __slots__ = (
        "_delayed",
        "_ip",
        "_listener",
        "_port",
        "_seen",
        "_sock",
        "_source",
        "_waiting",
        "deadline",
    )

    def __init__(self, listener: Listener, sock: socket.socket, source: Source, ip: str, port: int) -> None:
        self._listener = listener
        self._sock = sock
        self._source = source
        self._ip = ip
        self._port = port
        self._delayed: asyncio.TimerHandle | None = None
        self._waiting = False
        self._seen = 0
        self.deadline = 0.0

    def look_in(self, seconds: float) -> None:
        """Look when it is the turn of this source."""
        self._listener.watch(self)
        self.deadline += seconds
        self._delayed = asyncio.get_running_loop().call_later(seconds, self._look_now)

    def _look_now(self) -> None:
        self._delayed = None
        self._listener.forget(self)
        self.look()

    def look(self) -> None:
        """Peek at what has arrived; go on when the server name is known."""
        try:
            data = self._sock.recv(clienthello.LIMIT, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            self._wait()
            return
        except OSError:
            self.drop("closed")
            return
        if len(data) <= self._seen:  # readable and nothing new: the end
            self.drop("closed")
            return
        self._seen = len(data)
        self._judge(data)

    def timed_out(self) -> None:
        """No hello in time."""
        self.drop("timeout")

    def drop(self, reason: str, alert: bytes = b"") -> None:
        """Close, telling the client why if TLS has a word for it."""
        self._release()
        if alert:
            _say(self._sock, alert)
        self._sock.close()
        self._listener.failed(self._source, reason)

    def _judge(self, data: bytes) -> None:
        try:
            name = clienthello.server_name(data)
        except clienthello.NotTls:
            self.drop("not-tls")
            return
        except clienthello.BadHello:
            self.drop("protocol", clienthello.DECODE_ERROR)
            return
        if name is None:
            self._wait()
            return
        context = self._listener.contexts.choose(name) if name else None
        if context is None:
            self.drop("unknown-name", clienthello.UNRECOGNIZED_NAME)
            return
        self._release()
        self._listener.greet(self._sock, self._source, self._ip, self._port, name, context)

    def _wait(self) -> None:
        """Look again when more bytes are there: peeked ones do not count."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, self._seen + 1)
        if not self._waiting:
            self._waiting = True
            asyncio.get_running_loop().add_reader(self._sock, self.look)
            self._listener.watch(self)

    def _release(self) -> None:
        if self._delayed is not None:
            self._delayed.cancel()
            self._delayed = None
            self._listener.forget(self)
        if self._waiting:
            self._waiting = False
            asyncio.get_running_loop().remove_reader(self._sock)
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
            self._listener.forget(self)


def _ip_of(address: tuple[str, int]) -> str:
    """Return the client's address. A socket for both families shows IPv4 as IPv6 (RFC 4291 section 2.5.5.2).

    Policies, rates and records would else not know 203.0.113.7 again in ::ffff:203.0.113.7.
    """
    ip = address[0]
    return ip.removeprefix("::ffff:") if "." in ip else ip


def _clean_for(buffers: _Buffers) -> None:
    """Have buffers made of clean pages: of a hole that fits the first one, and of wherever there is room for
    both. Of all combinations that were tried this left fewest pages that nobody uses."""
    pages.clean(buffers.incoming, 2 * buffers.outgoing)


def _keep_read_buffers_off_mmap() -> None:
    """Let malloc keep the 256 KiB that every read of an upstream takes and gives back.

    The buffer is shrunk before it is freed, so glibc never learns from it and maps, remaps and unmaps pages
    for each read: a third of the CPU of a small request. Freeing one larger block teaches it (mallopt(3),
    M_MMAP_THRESHOLD).
    """
    bytes(_READ * 4)


def _say(sock: socket.socket, alert: bytes) -> None:
    """Send an alert so that it arrives: closing with unread bytes would reset the connection instead."""
    try:
        sock.recv(clienthello.LIMIT)
        sock.send(alert)
        sock.shutdown(socket.SHUT_WR)
    except OSError:
        pass
