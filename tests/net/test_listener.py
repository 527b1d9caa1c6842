"""The listener on real sockets: names, client certificates, bounds, and clients that do not play along."""

import asyncio
import errno
import fcntl
import gc
import socket
import ssl
import sys
import tempfile
import termios
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from gateway_fakes import Counters
from gateway_pki import Authority, Files

from ztproxy.model.quota import Rate
from ztproxy.net import listener as module
from ztproxy.net.certificates import read_bundle
from ztproxy.net.clock import SystemClock
from ztproxy.net.listener import Arrival, Listener, PeerUnusable
from ztproxy.net.sources import Bounds, Source, Sources
from ztproxy.net.tls import KeyPair, ServerContexts
from ztproxy.net.wheel import Wheel
from ztproxy.wire.clienthello import UNRECOGNIZED_NAME

ID = "spiffe://corp.example/ci"


class Talk(asyncio.Protocol):
    """Says who is there and closes."""

    def __init__(self, arrival: Arrival, seen: list[Any]) -> None:
        self.arrival = arrival
        self.seen = seen

    def connection_made(self, transport: Any) -> None:
        try:
            peer = self.arrival.peer(transport.get_extra_info("ssl_object"))
        except PeerUnusable:
            self.seen.append("unusable")
            transport.abort()
            return
        self.seen.append(peer)
        certificate = peer.tls.certificate
        transport.write(f"{peer.tls.sni} {certificate.subject if certificate else '-'}\n".encode())

    def data_received(self, data: bytes) -> None: ...

    def connection_lost(self, exc: Exception | None) -> None:
        self.arrival.gone()


class Site:
    def __init__(self, listener: Listener, counters: Counters, port: int, seen: list[Any]) -> None:
        self.listener = listener
        self.counters = counters
        self.port = port
        self.seen = seen

    async def connect(self, context: ssl.SSLContext, name: str = "open.example") -> str:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=context, server_hostname=name
        )
        try:
            return (await asyncio.wait_for(reader.readline(), 5)).decode().strip()
        finally:
            writer.close()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)

    async def raw(self, data: bytes, *, end: bool = False) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(data)
            if end:
                writer.write_eof()
            return await asyncio.wait_for(reader.read(), 5)
        except ConnectionResetError:
            return b""
        finally:
            writer.close()

    async def empty(self) -> None:
        for _ in range(200):
            if not len(self.listener) and not self.counters.open:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"{len(self.listener)} connections are left")


Open = Callable[..., Awaitable[Site]]


@pytest.fixture
async def site(authority: Authority):
    """Opens listeners with a host for every client certificate mode."""
    files = authority.server("open.example", "optional.example", "required.example", "connect.example")
    modes: Any = {
        "optional.example": "optional",
        "required.example": "required",
        "connect.example": "connectors",
    }
    bundles = [
        read_bundle("workloads", "workload", authority.file, "corp.example"),
        read_bundle("connectors", "connector", authority.file),
    ]
    opened: list[tuple[Listener, Wheel, socket.socket]] = []

    async def open_site(host: str = "127.0.0.1", **limits: Any) -> Site:
        timeout = limits.pop("handshake_timeout", 5.0)
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        sock.bind((host, 0))
        sock.listen()
        clock, counters, seen = SystemClock(), Counters(), []
        wheel = Wheel(clock, turn=0.05)
        contexts = ServerContexts([KeyPair(files.certificate, files.key)], modes, bundles)
        listener = Listener(
            sock,
            contexts,
            lambda arrival: Talk(arrival, seen),
            wheel=wheel,
            clock=clock,
            tally=counters,
            sources=Sources(Bounds(**limits), clock.monotonic()),
            handshake_timeout=timeout,
        )
        listener.start()
        wheel.start()
        opened.append((listener, wheel, sock))
        return Site(listener, counters, sock.getsockname()[1], seen)

    yield open_site
    for listener, wheel, sock in opened:
        listener.stop()
        wheel.stop()
        sock.close()
    await asyncio.sleep(0.02)


def with_certificate(authority: Authority, files: Files) -> ssl.SSLContext:
    context = authority.trust()
    context.load_cert_chain(files.certificate, files.key)
    return context


async def test_names_and_certificates(site: Open, authority: Authority) -> None:
    here = await site()
    client = with_certificate(authority, authority.client(ID))
    assert await here.connect(authority.trust()) == "open.example -"
    assert await here.connect(client) == "open.example -"  # nobody asked for it
    assert await here.connect(authority.trust(), "optional.example") == "optional.example -"
    assert await here.connect(client, "optional.example") == f"optional.example {ID}"
    assert await here.connect(client, "required.example") == f"required.example {ID}"
    assert here.seen[-1].tls.version == "TLSv1.3"
    assert here.seen[-1].ip == "127.0.0.1"
    await here.empty()


async def refused(attempt: Awaitable[str]) -> None:
    """With TLS 1.3 a client learns only at the first read that its certificate was refused."""
    try:
        assert await attempt == ""
    except OSError:
        pass


async def test_required_means_required_in_the_handshake(site: Open, authority: Authority) -> None:
    here = await site()
    await refused(here.connect(authority.trust(), "required.example"))
    await here.empty()
    assert here.seen == []
    assert here.counters.handshakes == ["certificate"] or here.counters.handshakes == ["protocol"]


async def test_a_certificate_of_strangers_fails_even_where_it_is_optional(
    site: Open, authority: Authority, tmp_path: Path
) -> None:
    here = await site()
    stranger = Authority(tmp_path, "stranger").client(ID)
    expired = authority.client(ID, days=-1)
    for files in (stranger, expired):
        await refused(here.connect(with_certificate(authority, files), "optional.example"))
    await here.empty()
    assert here.seen == []
    assert here.counters.handshakes == ["certificate", "certificate"]


async def test_no_file_is_needed_to_know_a_certificate(
    site: Open, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the directory for temporary files is full, or read-only."""
    here = await site()
    shows = with_certificate(authority, authority.client(ID))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    for name in ("optional.example", "required.example"):
        assert await here.connect(shows, name) == f"{name} {ID}"
    assert await here.connect(authority.trust(), "optional.example") == "optional.example -"
    await refused(here.connect(authority.trust(), "required.example"))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_resumed_session_never_brings_a_certificate_along(
    site: Open, authority: Authority, version: ssl.TLSVersion
) -> None:
    here = await site()
    context = with_certificate(authority, authority.client(ID))
    context.maximum_version = version

    def talk(session: ssl.SSLSession | None) -> tuple[ssl.SSLSession | None, bytes]:
        with socket.create_connection(("127.0.0.1", here.port), 5) as plain:
            sock = context.wrap_socket(
                plain, server_hostname="optional.example", session=session, suppress_ragged_eofs=True
            )
            try:
                return sock.session, sock.recv(100)
            except OSError:
                return sock.session, b""
            finally:
                sock.close()

    session, first = await asyncio.to_thread(talk, None)
    assert first == f"optional.example {ID}\n".encode()
    _, second = await asyncio.to_thread(talk, session)
    assert second == first
    await here.empty()


def test_a_resumed_session_with_a_certificate_is_unusable() -> None:
    class Resumed:
        session_reused = True

        def getpeercert(self, binary_form: bool) -> bytes | None:
            return b"der"

    source = Source("192.0.2.7", Bounds(), 0.0)
    arrival = Arrival(source, "192.0.2.7", 1, "a.example", None, lambda _: None)  # type: ignore[arg-type]
    with pytest.raises(PeerUnusable):
        arrival.peer(Resumed())  # type: ignore[arg-type]


async def test_a_name_without_certificate_is_told_so(site: Open, authority: Authority) -> None:
    here = await site()
    with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized.name"):
        await here.connect(authority.trust(), "app.elsewhere.test")
    with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized.name"):
        await here.connect(authority.trust(), "127.0.0.1")  # an address: no server name is sent
    await here.empty()
    assert here.counters.handshakes == ["unknown-name"] * 2


async def test_what_is_not_tls(site: Open) -> None:
    here = await site()
    assert await here.raw(b"GET / HTTP/1.1\r\nHost: open.example\r\n\r\n") == b""
    assert await here.raw(b"\x16\x03\x01\x00\x06\x01\x00\x00\x02\x03\x03") == bytes((21, 3, 3, 0, 2, 2, 50))
    assert await here.raw(b"\x16\x03", end=True) == b""
    assert await here.raw(b"", end=True) == b""
    await here.empty()
    assert here.counters.handshakes == ["not-tls", "protocol", "closed", "closed"]


async def test_a_hello_in_single_bytes(site: Open, authority: Authority) -> None:
    here = await site()
    out = ssl.MemoryBIO()
    client = authority.trust().wrap_bio(ssl.MemoryBIO(), out, server_hostname="nowhere.test")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    data = out.read()
    reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
    for i in range(len(data)):
        writer.write(data[i : i + 1])
        if i % 50 == 0:
            await asyncio.sleep(0.005)
    assert await asyncio.wait_for(reader.read(), 5) == UNRECOGNIZED_NAME
    writer.close()
    await here.empty()


async def test_waiting_for_a_hello_costs_no_cpu(site: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    here = await site()
    looks = 0
    look = module._Hello.look

    def counting(self: Any) -> None:
        nonlocal looks
        looks += 1
        look(self)

    monkeypatch.setattr(module._Hello, "look", counting)
    _, writer = await asyncio.open_connection("127.0.0.1", here.port)
    writer.write(b"\x16\x03\x01\x02\x00\x01")
    await asyncio.sleep(0.2)
    assert looks <= 4
    writer.close()
    await here.empty()


async def test_a_silent_client_is_dropped(site: Open) -> None:
    here = await site(handshake_timeout=0.1)
    assert await here.raw(b"") == b""
    assert await here.raw(b"\x16\x03\x01") == b""
    await here.empty()
    assert here.counters.handshakes == ["timeout", "timeout"]


async def test_a_handshake_that_stops_halfway(site: Open, authority: Authority) -> None:
    here = await site(handshake_timeout=0.2)
    out = ssl.MemoryBIO()
    client = authority.trust().wrap_bio(ssl.MemoryBIO(), out, server_hostname="open.example")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    assert len(await here.raw(out.read())) > 100  # our flight, then nothing
    await here.empty()
    assert here.counters.handshakes in (["timeout"], ["closed"])


async def test_a_fault_in_a_handshake_keeps_no_place(
    site: Open, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: faults.append(context))
    place = await site()

    async def broken(*_: object, **__: object) -> None:
        raise ValueError("a fault of ours")

    monkeypatch.setattr("aiofastnet.connect_accepted_socket", broken)
    with pytest.raises(OSError):
        await place.connect(authority.trust())
    await place.empty()
    gc.collect()
    assert [str(fault["exception"]) for fault in faults] == ["a fault of ours"]


async def test_ipv4_is_known_as_such_on_a_socket_for_both_families(site: Open, authority: Authority) -> None:
    here = await site("::")
    assert await here.connect(authority.trust()) == "open.example -"
    assert [peer.ip for peer in here.seen] == ["127.0.0.1"]


async def test_bounds(site: Open, authority: Authority) -> None:
    here = await site(connections_per_source=2)
    held = [await asyncio.open_connection("127.0.0.1", here.port) for _ in range(2)]
    assert await here.raw(b"") == b""
    assert here.counters.handshakes == ["too-many-from-source"]
    for _, writer in held:
        writer.close()
    await here.empty()
    assert await here.connect(authority.trust()) == "open.example -"
    total = await site(connections=1)
    _, writer = await asyncio.open_connection("127.0.0.1", total.port)
    assert await total.raw(b"") == b""
    assert total.counters.handshakes == ["too-many"]
    writer.close()
    await total.empty()


async def test_a_source_in_a_hurry_is_turned_away(site: Open, authority: Authority) -> None:
    here = await site(handshakes_per_source=Rate(0.001, 2))
    for _ in range(2):
        assert await here.connect(authority.trust()) == "open.example -"
    with pytest.raises(OSError):
        await here.connect(authority.trust())
    assert here.counters.handshakes == ["too-fast"]
    await here.empty()


async def test_a_source_above_its_rate_waits_for_its_turn(site: Open, authority: Authority) -> None:
    here = await site(handshakes_per_source=Rate(5.0, 1))
    begin = asyncio.get_running_loop().time()
    for _ in range(3):
        assert await here.connect(authority.trust()) == "open.example -"
    assert asyncio.get_running_loop().time() - begin > 0.35
    reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
    await asyncio.sleep(0.05)
    here.listener.stop()  # whoever waits is dropped, too
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()
    await here.empty()
    assert here.counters.handshakes == ["stopping"]


async def test_handshakes_under_way_are_bounded_by_source(site: Open, authority: Authority) -> None:
    here = await site(handshaking_per_source=2)
    assert await here.connect(authority.trust()) == "open.example -"  # what is over does not count
    held = [await asyncio.open_connection("127.0.0.1", here.port) for _ in range(2)]
    assert await here.raw(b"") == b""
    assert here.counters.handshakes == ["too-many-handshakes"]
    for _, writer in held:
        writer.close()
    await here.empty()
    assert await here.connect(authority.trust()) == "open.example -"


async def test_what_all_ask_for_together_waits(site: Open, authority: Authority) -> None:
    """Nobody is turned away for what others do."""
    here = await site(handshaking=1)
    _, writer = await asyncio.open_connection("127.0.0.1", here.port)
    waiting = asyncio.create_task(here.connect(authority.trust()))
    await asyncio.sleep(0.2)
    assert not waiting.done()
    assert len(here.listener) == 1
    writer.close()
    assert await waiting == "open.example -"
    assert here.counters.pauses
    assert here.counters.handshakes == ["closed"]
    brief = await site(handshakes=Rate(20.0, 1))
    for _ in range(3):
        assert await brief.connect(authority.trust()) == "open.example -"
    assert brief.counters.pauses
    assert brief.counters.handshakes == []
    await brief.empty()


async def test_the_addresses_of_one_ipv6_network_are_one_source(
    site: Open, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses = iter(["2001:db8::1", "2001:db8::2:3", "2001:db8::4", "2001:db8:0:1::1"])
    monkeypatch.setattr(module, "_ip_of", lambda _: next(addresses))
    here = await site(connections_per_source=2)
    held = [await asyncio.open_connection("127.0.0.1", here.port) for _ in range(2)]
    assert await here.raw(b"") == b""
    assert here.counters.handshakes == ["too-many-from-source"]
    assert await here.connect(authority.trust()) == "open.example -"
    for _, writer in held:
        writer.close()
    await here.empty()


async def test_without_descriptors_it_pauses_and_comes_back(
    site: Open, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = await site()
    monkeypatch.setattr(module, "BACK_OFF", 0.1)
    calls = 0

    class Poor:
        def __init__(self, sock: socket.socket) -> None:
            self.sock = sock

        def accept(self) -> Any:
            nonlocal calls
            calls += 1
            if calls == 1:
                raise OSError(errno.EMFILE, "too many")
            return self.sock.accept()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.sock, name)

    here.listener._sock = Poor(here.listener._sock)  # type: ignore[assignment]
    assert await here.connect(authority.trust()) == "open.example -"
    assert here.counters.handshakes == ["accept"]
    assert calls <= 4


async def test_stopping_drops_who_has_not_arrived(site: Open) -> None:
    here = await site()
    reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
    await asyncio.sleep(0.05)
    here.listener.stop()
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()
    await here.empty()


async def test_the_kernel_takes_little_for_a_client_that_reads_nothing(
    site: Open, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would take megabytes, which we would have encrypted: that is what a slow read costs all others."""
    size, waiting = 8 << 20, []

    def flood(self: Talk, transport: Any) -> None:
        transport.write(b"x" * size)
        waiting.append(transport)

    monkeypatch.setattr(Talk, "connection_made", flood)
    here = await site()

    def shake_hands() -> ssl.SSLSocket:
        plain = socket.socket()
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        plain.connect(("127.0.0.1", here.port))
        return authority.trust().wrap_socket(plain, server_hostname="open.example")

    silent = await asyncio.to_thread(shake_hands)
    await asyncio.sleep(0.2)
    assert size - waiting[0].get_write_buffer_size() < 1 << 20
    waiting[0].abort()
    silent.close()
    await here.empty()


@pytest.mark.parametrize(("host", "at_once"), [("open.example", 1), ("connect.example", 3)])
async def test_records_of_a_connector_are_taken_together(
    site: Open, authority: Authority, monkeypatch: pytest.MonkeyPatch, host: str, at_once: int
) -> None:
    """A caller's are not: what that needs is kept for each connection, and there may be very many."""
    record, made, taken = 16384, asyncio.get_running_loop().create_future(), []

    def wait(self: Talk, transport: Any) -> None:
        transport.pause_reading()
        made.set_result(transport)

    monkeypatch.setattr(Talk, "connection_made", wait)
    monkeypatch.setattr(Talk, "data_received", lambda self, data: taken.append(len(data)))
    here = await site()
    context = with_certificate(authority, authority.client(ID))
    _, writer = await asyncio.open_connection("127.0.0.1", here.port, ssl=context, server_hostname=host)
    transport = await made
    writer.write(b"x" * 3 * record)
    fd = transport.get_extra_info("socket").fileno()
    while int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), sys.byteorder) < 3 * record:
        await asyncio.sleep(0.01)
    transport.resume_reading()
    while sum(taken) < 3 * record:
        await asyncio.sleep(0.01)
    assert taken == [at_once * record] * (3 // at_once)
    writer.close()
    await here.empty()
