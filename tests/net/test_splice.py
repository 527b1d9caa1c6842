"""Two connections made one: what comes in a turn goes on at its end, in order, and no end overtakes it."""

import asyncio
from typing import Any

import pytest

from ztproxy.net.outbox import LARGE, Outbox
from ztproxy.net.splice import Half


class Transport(asyncio.Transport):
    """Notes what is done to all transports of a test in one list."""

    def __init__(self, name: str, done: list[tuple[str, Any]]) -> None:
        super().__init__()
        self._name, self._done, self._closing = name, done, False

    def _note(self, what: Any) -> None:
        self._done.append((self._name, what))

    def write(self, data: Any) -> None:
        if not self._closing:
            self._note(bytes(data))

    def close(self) -> None:
        self._closing = True
        self._note("close")

    def abort(self) -> None:
        self._closing = True
        self._note("abort")

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        self._note("pause")

    def resume_reading(self) -> None:
        self._note("resume")


class Pair:
    """Two halves, left and right."""

    def __init__(self, name: str, outbox: Outbox, done: list[tuple[str, Any]]) -> None:
        self.gone: list[Half] = []
        self.left, self.right = Half(self.gone.append, outbox), Half(self.gone.append, outbox)
        self.right.connection_made(Transport(f"{name}-right", done))
        self.left.join(Transport(f"{name}-left", done), self.right)

    def rest(self) -> None:
        """Be lost on both sides."""
        for half in (self.left, self.right):
            half.connection_lost(None)


def _one() -> tuple[Pair, list[tuple[str, Any]]]:
    done: list[tuple[str, Any]] = []
    return Pair("a", Outbox(), done), done


async def test_what_comes_in_one_turn_goes_on_together_at_its_end() -> None:
    outbox, done = Outbox(), list[tuple[str, Any]]()
    one, other = Pair("a", outbox, done), Pair("b", outbox, done)
    one.left.data_received(b"1")
    other.left.data_received(b"2")
    other.right.data_received(b"3")
    one.left.data_received(b"4")
    assert done == []
    await asyncio.sleep(0)
    assert done == [("a-right", b"1"), ("b-right", b"2"), ("b-left", b"3"), ("a-right", b"4")]
    assert outbox.turn == 1


async def test_what_is_large_waits_for_nothing() -> None:
    pair, done = _one()
    pair.left.data_received(b"1")
    pair.left.data_received(b"x" * LARGE)
    assert done == [("a-right", b"1"), ("a-right", b"x" * LARGE)]


async def test_an_end_does_not_overtake_what_came_before_it_from_either_side() -> None:
    pair, done = _one()
    pair.right.data_received(b"answer")
    pair.left.data_received(b"last")
    assert pair.left.eof_received() is False
    assert done == [("a-left", b"answer"), ("a-right", b"last"), ("a-right", "resume"), ("a-right", "close")]
    pair.rest()
    await asyncio.sleep(0)
    assert len(done) == 4  # who has said its end, or was closed by it, cuts nobody off
    assert pair.gone == [pair.left, pair.right]


async def test_an_end_that_meets_one_does_not_overtake_anything_either() -> None:
    """The other side is closing already, and what came from there is on its way."""
    pair, done = _one()
    pair.right.data_received(b"answer")
    pair.right.transport.abort()
    pair.left.eof_received()
    assert done == [("a-right", "abort"), ("a-left", b"answer")]
    pair.rest()


@pytest.mark.parametrize("error", [None, ConnectionResetError()])
async def test_one_that_is_cut_off_looks_so_on_the_other_side_and_loses_nothing_from_before(
    error: Exception | None,
) -> None:
    pair, done = _one()
    pair.left.data_received(b"before")
    pair.left.connection_lost(error)
    assert done == [("a-right", b"before"), ("a-right", "abort")]
    pair.right.connection_lost(None)
    assert pair.gone == [pair.left, pair.right]


async def test_nobody_is_read_faster_than_the_other_side_takes_it() -> None:
    pair, done = _one()
    pair.right.pause_writing()
    assert done == []  # somebody may be reading
    await asyncio.sleep(0)
    pair.right.resume_writing()
    pair.left.pause_writing()
    await asyncio.sleep(0)
    assert done == [("a-left", "pause"), ("a-left", "resume"), ("a-right", "pause")]
    pair.left.resume_writing()
    pair.left.pause_writing()
    pair.left.resume_writing()  # in time
    await asyncio.sleep(0)
    assert done[3:] == [("a-right", "resume"), ("a-right", "resume")]
    pair.right.transport.abort()
    pair.left.resume_writing()  # nobody reads what is closing
    assert done[-1] == ("a-right", "abort")


async def test_one_that_is_full_while_others_are_written_stops_only_its_own() -> None:
    outbox, done = Outbox(), list[tuple[str, Any]]()
    one, other = Pair("a", outbox, done), Pair("b", outbox, done)

    class Full(Transport):
        def write(self, data: Any) -> None:
            super().write(data)
            one.right.pause_writing()

    one.right.transport = one.left._sink = Full("a-right", done)
    one.left.data_received(b"1")
    other.left.data_received(b"2")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert done == [("a-right", b"1"), ("b-right", b"2"), ("a-left", "pause")]
