"""Writes that wait for the end of a turn of the loop: all of them, in order, and never for long."""

import asyncio
from typing import Any

from ztproxy.net.outbox import LARGE, WRITES, Outbox


class Transport(asyncio.Transport):
    """Notes what is written, to all transports of a test in one list."""

    def __init__(self, name: str, written: list[tuple[str, bytes]], fails: bool = False) -> None:
        super().__init__()
        self.name, self._written, self._fails = name, written, fails
        self.aborted = False
        self.then: Any = None

    def write(self, data: Any) -> None:
        if self._fails:
            raise ValueError("no more")
        self._written.append((self.name, bytes(data)))
        if self.then is not None:
            then, self.then = self.then, None
            then()

    def abort(self) -> None:
        self.aborted = True


def _two() -> tuple[Outbox, list[tuple[str, bytes]], Transport, Transport]:
    written: list[tuple[str, bytes]] = []
    return Outbox(), written, Transport("a", written), Transport("b", written)


async def test_what_is_put_in_one_turn_goes_out_at_its_end_and_in_order() -> None:
    outbox, written, a, b = _two()
    seen = []
    asyncio.get_running_loop().call_soon(lambda: seen.append(list(written)))  # still in this turn
    outbox.put(a, b"1")
    outbox.put(b, b"2")
    outbox.put(a, b"3")
    assert written == []
    await asyncio.sleep(0)
    assert seen == [[]]
    assert written == [("a", b"1"), ("b", b"2"), ("a", b"3")]


async def test_a_later_turn_is_written_as_well() -> None:
    outbox, written, a, _ = _two()
    for number in (b"1", b"2"):
        outbox.put(a, number)
        await asyncio.sleep(0)
    outbox.put(a, b"3")
    outbox.flush()
    outbox.put(a, b"4")  # the call that was due for the one before does for this one, too
    await asyncio.sleep(0)
    assert [data for _, data in written] == [b"1", b"2", b"3", b"4"]


async def test_neither_many_nor_much_waits() -> None:
    outbox, written, a, _ = _two()
    for _ in range(WRITES):
        assert written == []
        outbox.put(a, b"x")
    assert len(written) == WRITES
    outbox.put(a, b"small")
    outbox.put(a, b"y" * LARGE)
    assert [data for _, data in written[WRITES:]] == [b"small", b"y" * LARGE]


async def test_what_a_write_brings_about_goes_last() -> None:
    """A transport that is full tells its protocol at once, and that may have something to say."""
    outbox, written, a, b = _two()
    a.then = lambda: (outbox.put(b, b"3"), outbox.flush(), outbox.put(a, b"4"))
    outbox.put(a, b"1")
    outbox.put(b, b"2")
    outbox.flush()
    assert written == [("a", b"1"), ("b", b"2"), ("b", b"3"), ("a", b"4")]
    await asyncio.sleep(0)
    assert len(written) == 4


async def test_one_that_can_not_write_keeps_nobody_from_it() -> None:
    outbox, written, a, _ = _two()
    broken, told = Transport("broken", written, fails=True), list[str]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["message"]))
    outbox.put(broken, b"1")
    outbox.put(a, b"2")
    await asyncio.sleep(0)
    assert written == [("a", b"2")]
    assert broken.aborted
    assert told == ["a write failed by an error of ours"]
    outbox.put(a, b"3")
    await asyncio.sleep(0)
    assert written[1:] == [("a", b"3")]


async def test_whether_something_was_written_can_be_told() -> None:
    outbox, _, a, _ = _two()
    turn = outbox.turn
    outbox.put(a, b"1")
    assert outbox.turn == turn
    outbox.flush()
    assert outbox.turn != turn
    outbox.flush()  # nothing to do is no turn
    assert outbox.turn == turn + 1
