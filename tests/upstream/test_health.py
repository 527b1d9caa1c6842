"""Targets are asked how they are, and lose their turns when they do not answer well."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from gateway_fakes import ROUTE

from ztproxy.model.resource import HealthCheck, Target, Targets, Upstream
from ztproxy.net.clock import SystemClock
from ztproxy.net.dial import Dialler
from ztproxy.net.outbox import Outbox
from ztproxy.net.wheel import Wheel
from ztproxy.upstream.health import Streak, ask, request_of, watch
from ztproxy.upstream.spread import Group
from ztproxy.upstream.upstreams import Upstreams

CHECK = HealthCheck(
    "/healthz", "app.example", interval=0.02, patience=0.1, healthy_after=2, unhealthy_after=3
)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
SICK = b"HTTP/1.1 503 Sick\r\nContent-Length: 0\r\n\r\n"


class App:
    """Says `answer` to everything, and keeps what it was asked."""

    def __init__(self) -> None:
        self.answer: bytes | None = OK
        self.asked: list[bytes] = []
        self.open = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            self.asked.append(await reader.readuntil(b"\r\n\r\n"))
            if self.answer is not None:
                writer.write(self.answer)
            await reader.read()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            writer.transport.abort()


Start = Callable[[], Awaitable[tuple[App, Upstream]]]


@pytest.fixture
async def start():
    """Starts applications."""
    servers = []

    async def start() -> tuple[App, Upstream]:
        app = App()
        server = await asyncio.start_server(app.serve, "127.0.0.1", 0)
        servers.append(server)
        return app, Upstream(scheme="http", host="127.0.0.1", port=server.sockets[0].getsockname()[1])

    yield start
    for server in servers:
        server.close()
    await asyncio.sleep(0.02)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not true():
            await asyncio.sleep(0.01)


async def status(upstream: Upstream) -> int:
    return (await ask(Dialler({}), upstream, request_of(CHECK), CHECK.patience))[0]


def test_a_belief_changes_after_so_many_answers_in_a_row() -> None:
    streak = Streak(CHECK, healthy=True)
    assert [streak.note(good=good) for good in (False, False, True, False, False, False)] == [False] * 5 + [
        True
    ]
    assert not streak.healthy
    assert [streak.note(good=good) for good in (True, False, True, True)] == [False] * 3 + [True]
    assert streak.healthy


async def test_what_is_asked_names_nobody(start: Start) -> None:
    app, upstream = await start()
    assert await status(upstream) == 200
    assert app.asked == [
        b"GET /healthz HTTP/1.1\r\nHost: app.example\r\nUser-Agent: ztproxy-health\r\n"
        b"Accept: */*\r\nConnection: close\r\n\r\n"
    ]
    await until(lambda: app.open == 0)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK, 200),
        (b"HTTP/1.1 302 Found\r\nLocation: /healthy\r\n\r\n", 302),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 100_000, 200),
        (b"HTTP/1.1 200 OK\r\nA: " + b"x" * 20_000, 0),
        (b"200 OK\r\n\r\n", 0),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 50, 0),
        (None, 0),
    ],
)
async def test_answers_and_what_is_none(start: Start, answer: bytes | None, expected: int) -> None:
    app, upstream = await start()
    app.answer = answer
    assert await status(upstream) == expected
    await until(lambda: app.open == 0)


async def test_nobody_there(free_port: Callable[[], int]) -> None:
    assert await status(Upstream(scheme="http", host="127.0.0.1", port=free_port())) == 0


@pytest.mark.parametrize(
    ("answer", "said"), [(SICK, "503"), (b"200 OK\r\n\r\n", "not HTTP"), (None, "no answer in time")]
)
async def test_the_log_says_what_a_target_answered(
    start: Start, answer: bytes | None, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    app, upstream = await start()
    app.answer = answer
    group = Group("app", Targets((Target(upstream),), health=CHECK))
    task = asyncio.create_task(watch(Dialler({}), group, 0, CHECK))
    await until(lambda: len(caplog.records) > 0)
    task.cancel()
    assert said.removeprefix("not ") in caplog.records[0].answer  # type: ignore[attr-defined]


async def test_a_sick_target_gets_no_requests_until_it_is_well(start: Start) -> None:
    one, two = await start(), await start()
    group = Group("app", Targets((Target(one[1]), Target(two[1])), health=CHECK))
    tasks = [asyncio.create_task(watch(Dialler({}), group, index, CHECK)) for index in (0, 1)]
    one[0].answer = SICK
    await until(lambda: not group.balancer.usable(0))
    assert len(one[0].asked) >= 3
    assert group.balancer.usable(1)
    one[0].answer = OK
    await until(lambda: group.balancer.usable(0))
    for task in tasks:
        task.cancel()


async def test_another_assembly_goes_on_with_what_is_known(start: Start) -> None:
    app, upstream = await start()
    app.answer = SICK
    clock = SystemClock()
    route = ROUTE.replaced(upstream=upstream, targets=Targets((Target(upstream),), health=CHECK))

    def made(known: dict[str, Group]) -> Upstreams:
        return Upstreams(Dialler({}), wheel=Wheel(clock), outbox=Outbox(), routes=[route], known=known)

    first = made({})
    first.start()
    await until(lambda: not first.states()[0].up)
    second = made(first.groups)
    first.close()
    assert not second.states()[0].up
    app.answer = OK
    second.start()
    await until(lambda: second.states()[0].up)
    second.close()
    await asyncio.sleep(0)
    asked = len(app.asked)
    await asyncio.sleep(0.1)
    assert len(app.asked) <= asked + 1
    other = Upstreams(Dialler({}), wheel=Wheel(clock), outbox=Outbox(), routes=[ROUTE], known=second.groups)
    assert other.states() == ()
