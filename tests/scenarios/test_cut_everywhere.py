"""Whatever ends trust, on one of two nodes: requests are refused and streams cut on both within a second.

One trial for each cause of `make bench-cut`, which measures the same in numbers.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest

from bench.callers import open_stream
from bench.causes import CAUSES, Cause, Stage, doors, session_to
from bench.cut import trial
from bench.nodes import Estate
from bench.outside import Outside
from bench.people import sign_in
from ztproxy.net.clock import SystemClock
from ztproxy.service.state import StateDirectory
from ztproxy.service.storage import open_store

WITHIN = 1000.0  # ms


@pytest.fixture(scope="module")
def estate() -> Iterator[Estate]:
    with Estate() as running:
        yield running


@pytest.fixture(scope="module")
def outside(estate: Estate) -> Outside:
    return Outside(estate.outside)


@pytest.fixture
async def stage(estate: Estate, outside: Outside) -> AsyncIterator[Stage]:
    await outside.start()
    state = StateDirectory(estate.nodes[0].folder / "state")
    records = await open_store(await asyncio.to_thread(estate.settings), state, SystemClock())
    async with session_to(estate) as http:
        yield Stage(estate, records, outside, http)
    await records.close()
    await outside.stop()
    await asyncio.sleep(0.02)  # connections that were left are closed in the next rounds of the loop


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.name.replace(" ", "-"))
async def test_it_is_over_everywhere(stage: Stage, cause: Cause) -> None:
    """The node that is told is another one for every other cause."""
    other = await sign_in(stage.records)
    untouched = [await open_stream(door, "websocket", "/echo") for door in doors(stage.estate, other.cookie)]
    seen = await trial(replace(stage, turn=CAUSES.index(cause)), cause)
    assert seen.over < WITHIN, seen
    websockets, events = seen.ends[0::3] + seen.ends[1::3], seen.ends[2::3]
    assert all(end.startswith("close 1008 ") for end in websockets), "a WebSocket is told why"
    assert set(events) == {"cut"}, "an event stream does not end as if it were whole"
    assert not any(stream.over_at for stream in untouched)
    for stream in untouched:
        stream.leave()


async def test_the_command_line_cuts_on_all_nodes(stage: Stage) -> None:
    person = await sign_in(stage.records)
    streams = [
        await open_stream(door, "websocket", "/echo") for door in doors(stage.estate, person.cookie) * 2
    ]
    said = await asyncio.to_thread(stage.estate.nodes[1].cli, "sessions", "cut", person.session)
    assert said.returncode == 0, said.stderr
    async with asyncio.timeout(1):
        await asyncio.gather(*(stream.over for stream in streams))
    assert {stream.how for stream in streams} == {"close 1008 session-ended"}
