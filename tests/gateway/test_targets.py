"""Several targets: who serves, who is tried next, and what may be sent again."""

import asyncio
from typing import Any

import pytest
from gateway_fakes import ROUTE, Stage
from msgspec.structs import replace

from ztproxy.model.resource import Ejection, Target, Targets, Upstream
from ztproxy.upstream.spread import Group

GET = b"GET /a HTTP/1.1\r\nHost: app.example\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\nHost: app.example\r\nContent-Length: 2\r\n\r\nhi"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
RULE = Ejection(failures=2, least=10, longest=40)


def spread(*weights: int, ejection: Ejection = RULE, **changes: Any) -> Stage:
    targets = tuple(
        Target(Upstream(scheme="http", host=f"10.0.0.{number}", port=80), weight)
        for number, weight in enumerate(weights, 1)
    )
    several = Targets(targets, ejection)
    return Stage(ROUTE.replaced(upstream=targets[0].upstream, targets=several, **changes))


def dialled(stage: Stage) -> list[str]:
    return [event[1].removeprefix("10.0.0.") for event in stage.happened() if event[0] == "dial"]


def group_of(stage: Stage) -> Group:
    route = stage.door.requests[0].resource.route
    assert route is not None
    group = stage.upstreams.group(route)
    assert group is not None
    return group


async def asked(stage: Stage, count: int, answer: bytes = OK) -> str:
    """Ask and answer on fresh connections; return which targets served."""
    served = ""
    for _ in range(count):
        await stage.says(GET)
        served += "".join(dialled(stage))
        await stage.answers(answer)
        stage.upstream.lose()
    return served


async def test_requests_are_shared_by_weight_and_each_target_has_its_own_connections() -> None:
    stage = spread(2, 1)
    assert await asked(stage, 6) == "121121"
    stage = spread(1, 1)
    for _ in range(4):
        await stage.says(GET)
        for upstream in stage.dialler.made:
            if upstream.written:
                upstream.take()
                upstream.protocol.data_received(OK)  # type: ignore[attr-defined]
    assert dialled(stage) == ["1", "2"]
    assert [record.upstream for record in stage.ledger.records] == [
        "http://10.0.0.1:80",
        "http://10.0.0.2:80",
    ] * 2


async def test_one_target_is_not_worth_a_mention() -> None:
    stage = Stage()
    await stage.says(GET)
    await stage.answers(OK)
    assert stage.ledger.records[0].upstream == ""


@pytest.mark.parametrize("request_", [GET, POST])
async def test_a_target_that_can_not_be_reached_leads_to_the_next_whatever_the_method(
    request_: bytes,
) -> None:
    stage = spread(1, 1, 1)
    stage.dialler.down = {"10.0.0.1", "10.0.0.2"}
    await stage.says(request_)
    assert dialled(stage) == ["1", "2", "3"]
    assert stage.upstream.written.startswith(request_[:7])
    assert stage.upstream.written.endswith(request_[-4:])
    await stage.answers(OK)
    assert stage.client.take().endswith(b"hi")
    assert stage.ledger.records[0].upstream == "http://10.0.0.3:80"


async def test_when_none_can_be_reached_each_was_tried_once() -> None:
    stage = spread(1, 1, 1)
    stage.dialler.refusing = True
    await stage.says(GET)
    assert dialled(stage) == ["1", "2", "3"]
    assert stage.client.take().startswith(b"HTTP/1.1 502 ")
    assert stage.ledger.records[0].end == "upstream-unreachable"
    assert stage.paths.live == {}


async def test_failing_targets_are_left_out_and_come_back() -> None:
    stage = spread(1, 1)
    stage.dialler.down = {"10.0.0.1"}
    assert await asked(stage, 2) == "1212"  # the second failure: out
    assert await asked(stage, 4) == "2222"
    stage.dialler.down.clear()
    await stage.later(11)
    assert set(await asked(stage, 4)) == {"1", "2"}


async def test_who_is_left_out_is_seen_and_comes_back_without_requests() -> None:
    stage = spread(1, 1)
    stage.dialler.down = {"10.0.0.1"}
    await asked(stage, 2)
    assert [(state.target, state.up, state.ejections) for state in stage.upstreams.states()] == [
        ("http://10.0.0.1:80", False, 1),
        ("http://10.0.0.2:80", True, 0),
    ]
    await stage.later(11)
    assert [state.up for state in stage.upstreams.states()] == [True, True]


async def test_what_was_not_answered_at_all_is_asked_of_another_target_once() -> None:
    stage = spread(1, 1, 1)
    await stage.says(GET)
    stage.upstream.lose()
    await stage.turn()
    assert dialled(stage) == ["1", "2"]
    stage.upstream.lose()
    await stage.turn()
    assert dialled(stage) == []
    assert stage.client.take().startswith(b"HTTP/1.1 502 ")
    assert stage.upstreams.retries == {"app": 1}


@pytest.mark.parametrize(
    ("request_", "answer"),
    [(POST, b""), (GET[:-2] + b"Content-Length: 1\r\n\r\nx", b""), (GET, b"H"), (GET, OK[:-1])],
)
async def test_what_may_have_been_done_is_not_asked_again(request_: bytes, answer: bytes) -> None:
    stage = spread(1, 1)
    await stage.says(request_)
    if answer:
        await stage.answers(answer)
    stage.upstream.lose()
    await stage.turn()
    assert dialled(stage) == ["1"]
    assert len(stage.ledger.records) == 1


async def test_no_retries_when_the_route_says_so() -> None:
    stage = spread(1, 1, retries=0)
    await stage.says(GET)
    stage.upstream.lose()
    await stage.turn()
    assert dialled(stage) == ["1"]
    assert stage.client.take().startswith(b"HTTP/1.1 502 ")


async def test_an_idle_connection_that_died_says_nothing_about_its_target() -> None:
    stage = spread(1, 1, ejection=replace(RULE, failures=1))
    await stage.says(GET)
    await stage.answers(OK)
    await stage.says(GET)
    await stage.answers(OK)
    stage.happened()
    first = stage.dialler.made[0]
    await stage.says(GET)
    first.lose(ConnectionResetError())
    await stage.turn()
    assert dialled(stage) == ["1"]  # the same one, anew
    await stage.answers(OK)
    group = group_of(stage)
    assert group.balancer.usable(0)


async def test_answers_count_as_failures_when_the_route_says_so() -> None:
    sick = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
    stage = spread(1, 1)
    assert await asked(stage, 8, sick) == "12121212"
    stage = spread(1, 1, ejection=replace(RULE, statuses=frozenset({503})))
    assert await asked(stage, 8, sick) == "12122222"
    assert stage.client.take().count(b"HTTP/1.1 503 Service Unavailable") == 8  # answers they are, still


async def test_slow_targets_are_left_out_but_not_because_a_caller_is_slow() -> None:
    stage = spread(1, 1, ejection=replace(RULE, failures=1))
    await stage.says(POST[:-1])  # the caller keeps a byte back
    await stage.later(61)
    assert stage.client.take().startswith(b"HTTP/1.1 408 ")
    group = group_of(stage)
    assert group.balancer.usable(0)
    stage.client, stage.connection, _ = stage.connect()
    await stage.says(GET)
    await stage.later(61)
    assert stage.client.take().startswith(b"HTTP/1.1 504 ")
    assert not group.balancer.usable(1)


async def test_a_caller_who_leaves_blames_nobody() -> None:
    stage = spread(1, 1, ejection=replace(RULE, failures=1))
    for _ in range(3):
        stage.client, stage.connection, _ = stage.connect()
        await stage.says(GET)
        stage.client.lose()
    group = group_of(stage)
    assert group.balancer.ejected == 0
    assert stage.paths.live == {}


async def test_a_caller_who_leaves_while_targets_are_tried_ends_the_trying() -> None:
    stage = spread(1, 1, 1)
    stage.dialler.refusing = True
    stage.dialler.gate = asyncio.Event()
    await stage.says(GET)
    stage.client.lose()
    stage.dialler.gate.set()
    await stage.turn()
    assert dialled(stage) == ["1"]
