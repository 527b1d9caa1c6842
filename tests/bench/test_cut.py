"""What `make bench-cut` says of its trials, and its clients against answers written by hand."""

import asyncio

import pytest

from bench.callers import Caller, NotOpened, Stream
from bench.cut import Trial, summary, table


def trial(cause: str, refused: float, cut: float, acknowledged: float = 1.0) -> Trial:
    return Trial(cause, refused, cut, acknowledged, ("cut",))


def test_a_trial_is_over_with_the_last_of_both():
    assert trial("locked", 5.0, 7.0).over == 7.0
    assert trial("locked", 9.0, 7.0, 3.0).after == 6.0
    assert trial("reload", -3.0, -4.0).over == 0.0


def test_the_line_tells_every_cause_and_all_of_them():
    trials = [trial("cut", 1.0, float(ms)) for ms in range(1, 101)] + [trial("locked", 500.0, 1.0)]
    said = summary(trials)
    assert said["trials"] == 101
    assert said["p50_ms"] == 51.0
    assert said["p99_ms"] == 100.0
    assert said["by_cause"]["locked"] == {"p50_ms": 500.0, "p99_ms": 500.0, "trials": 1}
    assert [line["cause"] for line in table(trials)] == ["cut", "locked", "all"]


class Wire:
    def __init__(self):
        self.sent, self.aborted = b"", False

    def write(self, data):
        self.sent += data

    def abort(self):
        self.aborted = True


async def standing(kind):
    opened = asyncio.get_running_loop().create_future()
    stream, wire = Stream(kind, b"ask", opened), Wire()
    stream.connection_made(wire)
    return stream, wire, opened


async def test_a_websocket_is_over_with_its_close_frame_and_not_before():
    stream, wire, opened = await standing("websocket")
    stream.data_received(b"HTTP/1.1 101 Switching Protocols\r\n\r\n\x81\x04ping")
    assert opened.done()
    assert not stream.over_at
    stream.data_received(b"\x81\x04ping\x88\x08\x03\xf0locked")
    assert stream.over_at
    assert (stream.how, stream.echoes, wire.aborted) == ("close 1008 locked", 2, True)


async def test_an_event_stream_is_over_with_its_connection():
    stream, _, opened = await standing("events")
    stream.data_received(b"HTTP/1.1 200 OK\r\n\r\n9\r\ndata: 1\n\n\r\n")
    assert opened.done()
    assert not stream.over_at
    stream.connection_lost(None)
    assert stream.how == "cut"


async def test_a_refused_stream_never_stands():
    stream, _, opened = await standing("websocket")
    stream.data_received(b"HTTP/1.1 403 Forbidden\r\n\r\n")
    with pytest.raises(NotOpened, match="403"):
        await opened


async def test_a_caller_tells_an_answer_from_an_end():
    caller, wire = Caller(b"ask"), Wire()
    caller.connection_made(wire)
    asked = asyncio.create_task(caller.status())
    await asyncio.sleep(0)
    caller.data_received(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\n{")
    assert not asked.done()
    caller.data_received(b"}")
    assert await asked == 401
    caller.connection_lost(None)
    assert await caller.status() == 0
