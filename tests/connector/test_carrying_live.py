"""A gateway and connectors over real sockets: who is asked, who fails, and what nobody can make them do.

That callers see no difference between an application that is carried to and one that is dialled is shown by
`tests/gateway/test_sockets.py`, which runs both ways.
"""

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiofastnet
import aiohttp
import pytest
from connector_site import Site
from gateway_live import DIAL_IN, Connecting, Gateway, instance
from gateway_pki import Authority

from ztproxy.connector.allowed import Allowed
from ztproxy.connector.link import PATIENCE, Application
from ztproxy.connector.links import Limits, Proxy
from ztproxy.model.resource import Upstream
from ztproxy.wire.carrying import OF_CONNECTOR, FrameReader, Open, Opened, Refused, Status, Wanted, written

MIB = 1 << 20


def through(port: int, connector: str = "partner-site", **more: Any) -> Upstream:
    return Upstream(scheme="http", host="127.0.0.1", port=port, connector=connector, **more)


async def hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while head := await reader.readuntil(b"\r\n\r\n"):
        if b"/hold" in head:
            await reader.read()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")


async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")


async def until(true: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.01)


async def get(gateway: Gateway, session: aiohttp.ClientSession) -> tuple[int, str]:
    async with session.get(f"{gateway.url}/") as got:
        body = await got.text()
        return got.status, body if got.status == 200 else (await got.json())["code"]


# ---------------------------------------------------------------------- who fails


async def test_nobody_of_that_name_is_there(site: Site) -> None:
    port = await site.listen(hello)
    gateway = site.gateway(through(port), connect_timeout=0.2)
    await site.connector(gateway, allow=[f"http://127.0.0.1:{port}"], name="other-site")
    async with gateway.session() as session:
        assert await get(gateway, session) == (502, "connector-unavailable")


async def test_a_request_waits_for_a_connector_that_is_about_to_come(site: Site) -> None:
    port = await site.listen(hello)
    gateway = site.gateway(through(port), connect_timeout=20.0)
    async with gateway.session() as session:
        asking = asyncio.create_task(get(gateway, session))
        await until(lambda: gateway.paths.opened)
        await site.connector(gateway, allow=[f"http://127.0.0.1:{port}"])
        assert await asking == (200, "hello")


async def test_what_is_not_on_the_connectors_list_is_refused_there(site: Site) -> None:
    port = await site.listen(hello)
    gateway = site.gateway(through(port))
    connecting = await site.connector(gateway, allow=["http://127.0.0.1:9", f"https://127.0.0.1:{port}"])
    async with gateway.session() as session:
        assert await get(gateway, session) == (502, "connector-refused")
        assert await get(gateway, session) == (502, "connector-refused")  # and it is still ready
    assert gateway.records[-1].detail == "not-allowed"
    assert gateway.carriers.refused == {("partner-site", "not-allowed"): 2}
    assert not connecting.links.carrying


async def test_an_application_that_is_down_is_told_from_a_connector_that_is(
    site: Site, free_port: Callable[[], int]
) -> None:
    port = free_port()
    gateway = site.gateway(through(port))
    await site.connector(gateway, allow=[f"http://127.0.0.1:{port}"])
    async with gateway.session() as session:
        assert await get(gateway, session) == (502, "upstream-unreachable")
    assert gateway.records[-1].detail == "behind-connector"
    assert gateway.carriers.refused == {("partner-site", "unreachable"): 1}


async def test_a_name_that_can_be_none_leads_nowhere(site: Site) -> None:
    """What may be asked of no resolver at all."""
    host = "a" * 70 + ".example"
    upstream = Upstream(scheme="http", host=host, port=80, connector="partner-site")
    gateway = site.gateway(upstream, connect_timeout=20.0)
    connecting = await site.connector(gateway, allow=[f"http://{host}"])
    async with gateway.session() as session:
        assert await get(gateway, session) == (502, "upstream-unreachable")
    assert connecting.links.ready


async def test_an_instance_that_can_not_reach_it_leaves_it_to_one_that_can(site: Site) -> None:
    port = await site.listen(hello)
    gateway = site.gateway(through(port))
    await site.connector(gateway, allow=["http://127.0.0.1:9"], index=0)
    await site.connector(gateway, allow=[f"http://127.0.0.1:{port}"], index=1)
    async with gateway.session() as session:
        for _ in range(4):
            assert await get(gateway, session) == (200, "hello")


# ---------------------------------------------------------------------- many


async def test_instances_of_a_name_share_the_load(site: Site) -> None:
    port = await site.listen(hello)
    gateway = site.gateway(through(port))
    all_ = [await site.connector(gateway, allow=[f"http://127.0.0.1:{port}"], index=i) for i in range(3)]

    holding = [asyncio.create_task(hold(gateway)) for _ in range(9)]
    await until(lambda: sum(len(one.links.carrying) for one in all_) == 9)
    assert [len(one.links.carrying) for one in all_] == [3, 3, 3]
    for task in holding:
        task.cancel()
    await asyncio.gather(*holding, return_exceptions=True)


async def hold(gateway: Gateway) -> None:
    """Ask for something whose answer does not come."""
    reader, writer = await gateway.connect()
    try:
        writer.write(b"GET /hold HTTP/1.1\r\nHost: app.example\r\n\r\n")
        await reader.read(1)
    finally:
        writer.transport.abort()


async def test_used_up_connections_are_replaced_and_more_are_kept_when_they_are_needed(site: Site) -> None:
    port = await site.listen(once)
    gateway = site.gateway(through(port), connect_timeout=20.0)
    connecting = await site.connector(gateway, allow=[f"http://127.0.0.1:{port}"])
    async with gateway.session() as session:
        answers = await asyncio.gather(*(get(gateway, session) for _ in range(30)))
    assert set(answers) == {(200, "hello")}
    found = next(iter(gateway.carriers))
    assert found.wanted > 1
    await until(lambda: connecting.links.ready >= found.wanted)
    assert found.version == "1.2.3"


async def test_a_connector_that_dies_takes_only_what_it_carried_and_the_rest_moves_on(site: Site) -> None:
    """Under load: everything asked after the death is answered, in time."""
    port = await site.listen(hello)
    gateway = site.gateway(through(port), connect_timeout=10.0)
    first = await site.connector(gateway, allow=[f"http://127.0.0.1:{port}"], index=0)
    second = await site.connector(gateway, allow=[f"http://127.0.0.1:{port}"], index=1)
    results: list[tuple[int, str]] = []
    stop = asyncio.Event()

    async def ask() -> None:
        async with gateway.session() as session:
            while not stop.is_set():
                results.append(await get(gateway, session))

    asking = [asyncio.create_task(ask()) for _ in range(8)]
    await until(lambda: len(results) > 100 and first.links.carrying and second.links.carrying)
    carried, before = len(first.links.carrying), len(results)
    for half in list(first.links.carrying):
        half.transport.abort()
    await first.stop()
    await until(lambda: len(results) > before + 500)
    stop.set()
    await asyncio.gather(*asking)
    failed = [answer for answer in results if answer != (200, "hello")]
    assert len(failed) <= carried
    assert {code for _, code in failed} <= {"upstream-unreachable", "upstream-invalid"}
    assert not any(one.instance == "a" * 13 for one in gateway.carriers)


async def test_a_connector_comes_back_by_itself(site: Site) -> None:
    port = await site.listen(hello)
    gateway = site.gateway(through(port), connect_timeout=20.0)
    bounded = Limits(handshake=2.0)  # a kernel takes connections that nobody shakes hands on
    connecting = await site.connector(gateway, allow=[f"http://127.0.0.1:{port}"], limits=bounded)
    gateway.listener.drain()  # nobody is let in
    gateway.carriers.close()
    await until(lambda: connecting.links.ready == 0 and connecting.links._all()[0]._failures > 0)
    gateway.listener.start()
    async with gateway.session() as session:
        assert await get(gateway, session) == (200, "hello")


def held(began: asyncio.Event, go: asyncio.Event) -> Callable[..., Awaitable[None]]:
    """An application that says when it is asked, and answers once it is let go."""

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        began.set()
        await go.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        await reader.read()

    return slow


async def test_draining_finishes_what_is_carried_and_takes_nothing_new(site: Site) -> None:
    began, go = asyncio.Event(), asyncio.Event()
    port = await site.listen(held(began, go))
    gateway = site.gateway(through(port), connect_timeout=20.0)
    leaving = await site.connector(gateway, allow=[f"http://127.0.0.1:{port}"], index=0)
    async with gateway.session() as session:
        first = asyncio.create_task(get(gateway, session))
        await began.wait()
        await leaving.ready()
        draining = asyncio.create_task(leaving.links.drain(60))
        await until(lambda: leaving.links.ready == 0)
        assert not first.done() and len(leaving.links.carrying) == 1
        staying = await site.connector(gateway, allow=[f"http://127.0.0.1:{port}"], index=1)
        second = asyncio.create_task(get(gateway, session))
        await until(lambda: len(staying.links.carrying) == 1)
        go.set()
        assert await first == await second == (200, "hello")
        await draining  # what was carried is not kept for another request
        await leaving.task


async def test_a_worker_that_leaves_sends_connectors_elsewhere_and_still_uses_them(site: Site) -> None:
    port = await site.listen(hello)
    gateway = site.gateway(through(port))
    connecting = await site.connector(gateway, allow=[f"http://127.0.0.1:{port}"])
    gateway.carriers.leave()
    await until(lambda: connecting.links.ready == 0)
    async with gateway.session() as session:
        assert await get(gateway, session) == (200, "hello")


async def test_who_was_not_ready_when_the_worker_left_is_told_then(site: Site) -> None:
    """It had been told that one is wanted, and would else take this worker for one that serves."""
    gateway = site.gateway(through(9))
    impostor = await Impostor.dial(site, gateway)
    told = await impostor.hears()
    assert isinstance(told, Wanted) and told.ready == 1
    gateway.carriers.leave()
    impostor.say(Status("1"))
    told = await impostor.hears()
    assert isinstance(told, Wanted) and told.ready == 0
    impostor.writer.transport.abort()


async def test_another_certificate_replaces_what_is_ready(site: Site) -> None:
    port = await site.listen(hello)
    gateway = site.gateway(through(port))
    connecting = await site.connector(gateway, allow=[f"http://127.0.0.1:{port}"])
    old = set(next(iter(gateway.carriers)).ready)
    connecting.links.refresh()
    await until(lambda: not old & set(next(iter(gateway.carriers), _nobody).ready))
    assert connecting.links.ready >= 1


async def test_what_a_new_list_does_not_have_is_cut_at_once_and_the_rest_goes_on(site: Site) -> None:
    began = asyncio.Event()

    async def stays(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        began.set()
        await reader.read()

    port, other = await site.listen(stays), await site.listen(stays)
    both, one = [f"http://127.0.0.1:{port}", f"http://127.0.0.1:{other}"], [f"http://127.0.0.1:{other}"]
    gateways = [site.gateway(through(at)) for at in (port, other)]
    connecting = await site.connector(*gateways, allow=both)
    async with gateways[0].session() as first, gateways[1].session() as second:
        cut = asyncio.create_task(get(gateways[0], first))
        await began.wait()
        began.clear()
        kept = asyncio.create_task(get(gateways[1], second))
        await began.wait()
        connecting.links.allow(Allowed(one))
        status, _ = await asyncio.wait_for(cut, 20)
        assert status == 502
        assert await get(gateways[0], first) == (502, "connector-refused")
        assert not kept.done() and len(connecting.links.carrying) == 1
        kept.cancel()


async def test_a_list_that_changes_while_an_application_is_dialled_has_the_last_word(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[bytes] = []

    async def listens(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read())

    port = await site.listen(listens)
    gateway = site.gateway(through(port))
    connecting = await site.connector(gateway, allow=[f"http://127.0.0.1:{port}"])
    dialled = aiofastnet.create_connection

    async def meanwhile(loop: Any, protocol: Any, host: str, to: int, **more: Any) -> Any:
        if to == port:
            connecting.links.allow(Allowed(["http://127.0.0.1:9"]))
        return await dialled(loop, protocol, host, to, **more)

    monkeypatch.setattr(aiofastnet, "create_connection", meanwhile)
    async with gateway.session() as session:
        assert (await get(gateway, session))[0] == 502
    assert not connecting.links.carrying
    await until(lambda: heard == [b""])  # not a byte of the request


async def test_proxies_that_are_added_are_dialled_and_removed_ones_finish_what_they_have(site: Site) -> None:
    began, go = asyncio.Event(), asyncio.Event()
    port = await site.listen(held(began, go))
    before, after = (site.gateway(through(port), connect_timeout=0.2) for _ in range(2))
    connecting = await site.connector(before, allow=[f"http://127.0.0.1:{port}"])
    async with before.session() as session, after.session() as other:
        first = asyncio.create_task(get(before, session))
        await began.wait()
        connecting.links.dial([Proxy("127.0.0.1", after.port, DIAL_IN)], 60)
        await until(lambda: len(after.carriers))
        assert not first.done() and len(connecting.links.carrying) == 1
        assert await get(before, session) == (502, "connector-unavailable"), "nothing new for who was removed"
        go.set()
        assert await first == await get(after, other) == (200, "hello")
        await until(lambda: not len(before.carriers))
        await until(lambda: not connecting.links._leaving)
        connecting.links.dial([Proxy("127.0.0.1", at.port, DIAL_IN) for at in (before, after)], 60)
        await until(lambda: len(before.carriers))
        assert await get(before, session) == (200, "hello"), "and it may come back"


async def test_what_a_removed_proxy_does_not_finish_in_time_is_cut(site: Site) -> None:
    port = await site.listen(hello)
    gateway, other = site.gateway(through(port)), site.gateway(through(port))
    connecting = await site.connector(gateway, allow=[f"http://127.0.0.1:{port}"])
    async with gateway.session() as session:
        held = asyncio.create_task(session.get(f"{gateway.url}/hold"))
        await until(lambda: connecting.links.carrying)
        connecting.links.dial([Proxy("127.0.0.1", other.port, DIAL_IN)], 0.1)
        async with asyncio.timeout(20):
            assert (await held).status == 502
    await until(lambda: not connecting.links.carrying)


class _nobody:
    ready: tuple[()] = ()


# ---------------------------------------------------------------------- what ends a path


@pytest.mark.parametrize("state", ["ready", "carrying", "kept for later"])
async def test_revocation_cuts_a_connector_in_any_state(site: Site, state: str) -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if state == "carrying":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\nbegins")
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        await reader.read()
        closed.set()

    closed = asyncio.Event()
    port = await site.listen(endless)
    gateway = site.gateway(through(port))
    connecting = await site.connector(gateway, allow=[f"http://127.0.0.1:{port}"])
    async with gateway.session() as session:
        if state != "ready":
            async with session.get(f"{gateway.url}/") as got:
                assert got.status == 200
                if state == "carrying":
                    assert await got.content.readexactly(6) == b"begins"
                else:
                    assert await got.text() == "hello"
                    await until(lambda: len(gateway.world.upstreams) == 1)
                connecting.links.draining = True  # it would come again, and this door would let it
                cut_connectors(gateway)
                if state == "carrying":
                    with pytest.raises(aiohttp.ClientError):
                        await got.read()
            await closed.wait()
            assert len(gateway.world.upstreams) == 0
        else:
            connecting.links.draining = True
            cut_connectors(gateway)
    await until(lambda: not list(gateway.carriers))
    await until(lambda: not connecting.links.carrying)
    assert "cut: device-revoked" in {record.end for record in gateway.ledger.records}
    if state == "carrying":
        assert (gateway.records[-1].end, gateway.records[-1].detail) == ("upstream-failed", "connector-lost")


def cut_connectors(gateway: Gateway) -> None:
    for number, live in list(gateway.paths.live.items()):
        if live.permit.route.carries:
            gateway.paths.close(number)
            live.cut("device-revoked")


async def test_a_connector_is_nobody_without_a_certificate_of_its_own_authority(site: Site) -> None:
    """A workload's certificate with a connector's name, a device's of the right authority, none at all."""
    gateway = site.gateway(through(9))
    other = Authority(site.authority.directory, "others")
    for files in (
        other.client("spiffe://corp.example/connector/partner-site/" + "a" * 13),
        site.connectors.client("spiffe://corp.example/device/dev_a"),
        site.connectors.client("spiffe://other.example/connector/partner-site/" + "a" * 13),
        site.connectors.client("spiffe://corp.example/connector/partner-site/short"),
        None,
    ):
        context = site.authority.trust()
        if files is not None:
            context.load_cert_chain(files.certificate, files.key)
        assert b" 101 " not in await upgrade(gateway, context)
    assert not list(gateway.carriers)


ASK = (
    b"GET /.ztproxy/carry HTTP/1.1\r\nHost: connect.example\r\nConnection: Upgrade\r\n"
    b"Upgrade: ztproxy-carry\r\n\r\n"
)


async def upgrade(gateway: Gateway, context: ssl.SSLContext, ask: bytes = ASK) -> bytes:
    try:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", gateway.port, ssl=context, server_hostname=DIAL_IN
        )
        writer.write(ask)
        answer = await asyncio.wait_for(reader.read(4096), 10)
        writer.transport.abort()
    except OSError as refused:
        return str(refused).encode()
    return answer


@pytest.mark.parametrize(
    "ask",
    [
        ASK.replace(b"Upgrade: ztproxy-carry\r\n", b"").replace(b"Connection: Upgrade\r\n", b""),
        ASK.replace(b"GET", b"POST"),
        ASK.replace(b"/.ztproxy/carry", b"/.ztproxy/carry/other"),
        ASK.replace(b"ztproxy-carry\r\n\r\n", b"ztproxy-carry\r\nContent-Length: 5\r\n\r\nhello"),
        ASK.replace(b"Upgrade: ztproxy-carry", b"Upgrade: websocket"),
        ASK.replace(b"HTTP/1.1", b"HTTP/1.0"),
    ],
)
async def test_only_what_asks_exactly_for_that_may_carry(site: Site, ask: bytes) -> None:
    gateway = site.gateway(through(9))
    answer = await upgrade(gateway, instance(site.connectors), ask)
    assert answer.startswith(b"HTTP/1.1 4")
    assert not list(gateway.carriers)


# ---------------------------------------------------------------------- hostile words


class Impostor:
    """A captured connector: a true certificate, and whatever words it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.frames = FrameReader((*OF_CONNECTOR, Wanted, Open))

    @classmethod
    async def dial(cls, site: Site, gateway: Gateway) -> "Impostor":
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", gateway.port, ssl=instance(site.connectors), server_hostname=DIAL_IN
        )
        writer.write(ASK)
        assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
        return cls(reader, writer)

    def say(self, *frames: Any) -> None:
        self.writer.write(b"".join(one if isinstance(one, bytes) else written(one) for one in frames))

    async def hears(self) -> Any:
        data = await asyncio.wait_for(self.reader.read(4096), 10)
        found = self.frames.feed(data)
        return None if found is None else found[0]

    async def is_asked(self) -> None:
        """Wait for the question; what comes before it is passed over."""
        while not isinstance(await self.hears(), Open):
            pass

    async def is_cut(self) -> bool:
        try:
            while await asyncio.wait_for(self.reader.read(4096), 10):
                pass
        except ConnectionError:
            pass
        return True


HOSTILE: dict[str, list[Any]] = {
    "no frame": [b"\x00\x00\x02{}"],
    "http": [b"HTTP/1.1 200 OK\r\n\r\n"],
    "the gateway's words": [Open("http", "127.0.0.1", 1)],
    "opened, unasked": [Opened()],
    "refused, unasked": [Status("1"), Refused("busy")],
    "too long": [b"\x01\xff\xff"],
    "a flood": [Status("1")] * 50,
}


@pytest.mark.parametrize("words", HOSTILE.values(), ids=HOSTILE)
async def test_hostile_words_end_one_connection_and_nothing_more(site: Site, words: list[Any]) -> None:
    port = await site.listen(hello)
    gateway = site.gateway(through(port))
    await site.connector(gateway, allow=[f"http://127.0.0.1:{port}"], index=1)
    async with gateway.session() as session:
        assert await get(gateway, session) == (200, "hello")
        impostor = await Impostor.dial(site, gateway)
        impostor.say(*words)
        assert await impostor.is_cut()
        impostor.writer.transport.abort()
        assert await get(gateway, session) == (200, "hello")
    assert "protocol" in {record.end for record in gateway.ledger.records}


async def test_who_does_not_answer_is_passed_over(site: Site) -> None:
    """It is ready and says nothing when it is asked, as if its link were cut."""
    port = await site.listen(hello)
    gateway = site.gateway(through(port), connect_timeout=20.0)
    impostor = await Impostor.dial(site, gateway)
    impostor.say(Status("1"))
    await until(lambda: len(gateway.carriers) == 1)
    await site.connector(gateway, allow=[f"http://127.0.0.1:{port}"], index=1)
    async with gateway.session() as session:
        assert await get(gateway, session) == (200, "hello")
        assert await get(gateway, session) == (200, "hello")
    assert gateway.carriers.refused.get(("partner-site", "silent"), 0) <= 1
    impostor.writer.transport.abort()


async def test_who_works_on_it_is_waited_for(site: Site) -> None:
    port = await site.listen(hello)
    gateway = site.gateway(through(port), connect_timeout=20.0)
    impostor = await Impostor.dial(site, gateway)
    impostor.say(Status("1"))
    assert isinstance(await impostor.hears(), Wanted)
    async with gateway.session() as session:
        asking = asyncio.create_task(get(gateway, session))
        while not isinstance(heard := await impostor.hears(), Open):
            pass
        assert heard == Open("http", "127.0.0.1", port)
        impostor.say(Status("1"))
        await asyncio.sleep(1.5)  # longer than a silent one gets
        impostor.say(Opened())
        await impostor.reader.readuntil(b"\r\n\r\n")
        impostor.say(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        assert await asking == (200, "hello")
    impostor.writer.transport.abort()


async def test_a_connector_that_is_held_up_says_nothing_in_front_of_the_application(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sign of life is due in the same turn of the loop in which the application's connection stands."""
    made = Application.__init__

    def held_up(*arguments: Any) -> None:
        made(*arguments)
        time.sleep(PATIENCE + 0.1)

    monkeypatch.setattr(Application, "__init__", held_up)
    port = await site.listen(hello)
    gateway = site.gateway(through(port), connect_timeout=20.0, retries=0)
    await site.connector(gateway, allow=[f"http://127.0.0.1:{port}"])
    async with gateway.session() as session:
        assert await get(gateway, session) == (200, "hello")


async def test_a_gateway_that_is_held_up_itself_blames_nobody_for_it(site: Site) -> None:
    """As on a machine with too much to do: a second is over, and nobody has been listened to meanwhile."""
    gateway = site.gateway(through(9), connect_timeout=20.0, retries=0)
    impostor = await Impostor.dial(site, gateway)
    impostor.say(Status("1"))
    async with gateway.session() as session:
        asking = asyncio.create_task(get(gateway, session))
        await impostor.is_asked()
        time.sleep(1.3)  # holds up the loop, which is the gateway's, too
        await asyncio.sleep(0.3)
        impostor.say(Opened())
        await impostor.reader.readuntil(b"\r\n\r\n")
        impostor.say(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        assert await asking == (200, "hello")
    assert not gateway.carriers.refused
    impostor.writer.transport.abort()


async def test_bytes_before_the_first_request_end_what_is_carried(site: Site) -> None:
    """A captured connector has an answer ready for a request that was not asked yet."""
    gateway = site.gateway(through(9), connect_timeout=1.0, retries=0)
    impostor = await Impostor.dial(site, gateway)
    impostor.say(Status("1"))
    async with gateway.session() as session:
        asking = asyncio.create_task(get(gateway, session))
        await impostor.is_asked()
        impostor.say(written(Opened()) + b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        status, _ = await asking
        assert status == 502
    impostor.writer.transport.abort()


@pytest.mark.parametrize(
    "asked",
    [
        Open("http", "127.0.0.1", 1),
        Open("https", "127.0.0.1", 2),
        Open("unix", "/var/run/docker.sock", 0),
        Open("http", "169.254.169.254", 80),
        Open("http", "localhost", 2),
    ],
)
async def test_a_captured_proxy_can_not_have_anything_else_dialled(site: Site, asked: Open) -> None:
    """A listener with the proxy's own certificate asks for what is not on the list."""
    files = site.authority.server(DIAL_IN)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    answers: list[Any] = []
    done = asyncio.Event()

    async def captured(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: ztproxy-carry\r\n\r\n")
        frames, data = FrameReader(OF_CONNECTOR), b""
        writer.write(written(Wanted("evil", 0, 1, 1)) + written(asked))
        while len(answers) < 2:
            data = data or await reader.read(4096)
            found = frames.feed(data)
            data = b""
            if found is not None:
                answers.append(found[0])
                data = found[1]
        done.set()
        await reader.read()

    port = await site.listen(captured, ssl=context)
    connecting = Connecting([port], instance(site.connectors), ["http://127.0.0.1:2", "unix:/run/app.sock"])
    site.ends.append(connecting.stop)
    await asyncio.wait_for(done.wait(), 10)
    assert answers == [Status("1.2.3"), Refused("not-allowed")]
    assert not connecting.links.carrying


async def test_a_connector_carries_no_more_than_its_limit(site: Site) -> None:
    port = await site.listen(hello)
    gateway = site.gateway(through(port))
    await site.connector(gateway, allow=[f"http://127.0.0.1:{port}"], limits=Limits(carrying=1))
    holding = asyncio.create_task(hold(gateway))
    await until(lambda: any(one.carrying for one in gateway.carriers) and len(gateway.carriers))
    async with gateway.session() as session:
        assert await get(gateway, session) == (502, "connector-unavailable")
    assert gateway.records[-1].detail == "busy"
    holding.cancel()
    await asyncio.gather(holding, return_exceptions=True)


# ---------------------------------------------------------------------- what is carried


async def test_tls_inside_is_opaque_to_the_connector(site: Site) -> None:
    """The upstream's certificate is verified by the gateway, through the connector."""
    files = site.authority.server("crm.internal")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    port = await site.listen(hello, ssl=context)
    upstream = Upstream(
        scheme="https",
        host="127.0.0.1",
        port=port,
        server_name="crm.internal",
        ca=str(site.authority.file),
        connector="partner-site",
    )
    gateway = site.gateway(upstream)
    connecting = await site.connector(gateway, allow=[f"https://127.0.0.1:{port}"])
    async with gateway.session() as session:
        for _ in range(3):
            assert await get(gateway, session) == (200, "hello")
    assert len(gateway.world.upstreams) == 1 and len(connecting.links.carrying) == 1
    cut_connectors(gateway)
    await until(lambda: len(gateway.world.upstreams) == 0)


async def test_an_upstream_that_is_not_who_it_should_be_gets_no_byte(site: Site) -> None:
    files = site.authority.server("other.internal")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    port = await site.listen(hello, ssl=context)
    upstream = Upstream(
        scheme="https",
        host="127.0.0.1",
        port=port,
        server_name="crm.internal",
        ca=str(site.authority.file),
        connector="partner-site",
    )
    gateway = site.gateway(upstream)
    connecting = await site.connector(gateway, allow=[f"https://127.0.0.1:{port}"])
    async with gateway.session() as session:
        assert await get(gateway, session) == (502, "upstream-unreachable")
    assert gateway.records[-1].detail == "tls"
    await until(lambda: not connecting.links.carrying)


async def test_raw_streams_pass_through_an_upgrade(site: Site) -> None:
    async def mirror(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nready")
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()

    port = await site.listen(mirror)
    gateway = site.gateway(through(port), upgrades=frozenset({"tcp"}))
    await site.connector(gateway, allow=[f"tcp://127.0.0.1:{port}"])
    reader, writer = await gateway.connect()
    writer.write(b"GET / HTTP/1.1\r\nHost: app.example\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
    assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
    assert await reader.readexactly(5) == b"ready"
    sent = bytes(range(256)) * 4096

    async def send() -> None:
        for _ in range(4):
            writer.write(sent)
            await writer.drain()

    sending = asyncio.create_task(send())
    assert await reader.readexactly(4 * len(sent)) == sent * 4
    await sending
    writer.transport.abort()


async def test_what_a_connector_passes_on_in_one_turn_goes_together(site: Site) -> None:
    """Whoever waits for it is woken once."""
    port = await site.listen(hello)
    gateway = site.gateway(through(port))
    connecting = await site.connector(gateway, allow=[f"http://127.0.0.1:{port}"])
    asking = [await gateway.connect() for _ in range(3)]
    for _, writer in asking:
        writer.write(b"GET /hold HTTP/1.1\r\nHost: app.example\r\n\r\n")
    await until(lambda: len(connecting.links.carrying) == 3)
    await stands_still(lambda: connecting.links.outbox.turn)  # all have passed
    turn = connecting.links.outbox.turn
    for half in connecting.links.carrying:
        assert half.other is not None
        half.other.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
    assert connecting.links.outbox.turn == turn
    for reader, writer in asking:
        assert (await reader.readuntil(b"hello")).startswith(b"HTTP/1.1 200 ")
        writer.transport.abort()
    assert connecting.links.outbox.turn == turn + 1


async def test_events_arrive_one_by_one(site: Site) -> None:
    turn = asyncio.Event()

    async def events(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        for number in range(5):
            writer.write(f"data: {number}\n\n".encode())
            await turn.wait()
            turn.clear()

    port = await site.listen(events)
    gateway = site.gateway(through(port))
    await site.connector(gateway, allow=[f"http://127.0.0.1:{port}"])
    async with gateway.session() as session, session.get(f"{gateway.url}/") as got:
        for number in range(5):
            assert await got.content.readuntil(b"\n\n") == f"data: {number}\n\n".encode()
            turn.set()
        assert await got.content.read() == b""


async def test_a_stalled_download_holds_up_nobody_else(site: Site) -> None:
    async def both(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            if b"/big" not in head:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
                continue
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (64 * MIB))
            for _ in range(64):
                writer.write(b"x" * MIB)
                await writer.drain()
                sent.append(MIB)

    sent: list[int] = []
    port = await site.listen(both)
    gateway = site.gateway(through(port))
    await site.connector(gateway, allow=[f"http://127.0.0.1:{port}"])
    reader, writer = await gateway.connect(limit=1 << 16)
    writer.write(b"GET /big HTTP/1.1\r\nHost: app.example\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")  # and no more is taken
    await stands_still(lambda: len(sent))
    assert len(sent) < 64  # back-pressure has reached the application
    async with gateway.session() as session:
        for _ in range(50):
            assert await get(gateway, session) == (200, "hello")
    left = 64 * MIB
    while left:
        left -= len(await reader.read(1 << 16))
    writer.transport.abort()


async def stands_still(value: Callable[[], int]) -> None:
    """Wait until something has not changed for a while."""
    seen, since = value(), 0
    async with asyncio.timeout(30):
        while since < 20:
            await asyncio.sleep(0.02)
            seen, since = (value(), since + 1) if value() == seen and seen else (value(), 0)
