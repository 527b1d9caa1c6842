"""A thread that works for an event loop: in order, one answer for each, and nothing left behind."""

import asyncio
import gc
import threading
import weakref

import pytest

from ztproxy.store._lane import Lane


class Thing:
    """Something that can be looked after."""


async def test_work_is_done_in_order_beside_the_loop() -> None:
    lane = Lane("lane")
    done: list[int] = []
    answers = [lane.do(lambda n=n: (done.append(n), threading.current_thread().name)[1]) for n in range(50)]  # type: ignore[misc]
    assert set(await asyncio.gather(*answers)) == {"lane"}
    assert done == list(range(50))
    lane.stop()


async def test_what_fails_is_told_to_whoever_waits_and_the_next_is_done() -> None:
    lane = Lane("lane")

    def fail() -> None:
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        await lane.do(fail)
    assert await lane.do(lambda: 1) == 1
    lane.stop()


async def test_what_nobody_waits_for_is_not_begun_and_disturbs_nobody() -> None:
    lane, gate, begun = Lane("lane"), threading.Event(), list[str]()
    running = lane.do(lambda: gate.wait(5))
    waiting = lane.do(lambda: begun.append("waiting"))
    running.cancel()
    waiting.cancel()
    gate.set()
    assert await lane.do(lambda: "next") == "next"
    assert begun == []
    lane.stop()


async def test_stopping_waits_for_what_was_asked_for() -> None:
    lane, done = Lane("lane"), list[int]()
    answer = lane.do(lambda: done.append(1))
    lane.stop()
    assert done == [1]
    await answer
    assert "lane" not in {thread.name for thread in threading.enumerate()}


async def test_neither_results_nor_errors_are_held() -> None:
    lane = Lane("lane")
    thing = await lane.do(Thing)
    held = weakref.ref(thing)
    del thing
    await lane.do(lambda: None)
    gc.disable()
    try:
        assert held() is None

        def fail() -> None:
            local = Thing()
            nonlocal held
            held = weakref.ref(local)
            raise ValueError

        with pytest.raises(ValueError):
            await lane.do(fail)
        await lane.do(lambda: None)
        assert held() is None
    finally:
        gc.enable()
    lane.stop()


def test_a_loop_that_ends_first_leaves_no_thread_behind() -> None:
    gate = threading.Event()

    async def begin() -> None:
        Lane("orphan").do(lambda: gate.wait(5))

    asyncio.run(begin())
    gate.set()
    for thread in threading.enumerate():
        if thread.name == "orphan":
            thread.join(5)
            assert not thread.is_alive()
