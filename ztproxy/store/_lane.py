"""One thread that works for one event loop, in the order in which it is told. Used by `store.sqlite`.

A call is one future and one way there and back. With an executor it would be two futures, a lock and three
callbacks, which cost more than what a record takes to read.
"""

import asyncio
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar, final

T = TypeVar("T")
_Call = tuple[Callable[[], Any], "asyncio.Future[Any]"]


@final
class Lane:
    """Made in the event loop it works for; `stop` when nothing is to be done any more."""

    __slots__ = ("_calls", "_loop", "_thread")

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        # A daemon: a process that ends without `stop` ends. Whatever was acknowledged is on disk.
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def do(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        """Have it done after all that was asked for before; what it raises is raised to whoever waits.

        Not begun when nobody waits for it any more.
        """
        answer: asyncio.Future[T] = self._loop.create_future()
        self._calls.put((work, answer))
        return answer

    def stop(self) -> None:
        """Wait for what was asked for, and end."""
        self._calls.put(None)
        self._thread.join()

    def _run(self) -> None:
        while self._next():
            pass

    def _next(self) -> bool:
        """Do one; False at the end. What it comes to is not held any longer than it takes to hand it over."""
        call = self._calls.get()
        if call is None:
            return False
        work, answer = call
        if answer.cancelled():
            return True
        try:
            self._loop.call_soon_threadsafe(_settle, answer, *_done(work))
        except RuntimeError:  # the loop is closed, and nobody waits
            return False
        finally:
            del call, work, answer  # an error knows this frame, too
        return True


def _done(work: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    """Return what came of it. An error knows this frame, so nothing here knows the error."""
    try:
        return work(), None
    except BaseException as error:  # noqa: BLE001  told to whoever waits
        return None, error


def _settle(answer: "asyncio.Future[Any]", result: Any, failed: BaseException | None) -> None:
    if answer.done():  # nobody waits for it any more
        return
    if failed is not None:
        answer.set_exception(failed)
    else:
        answer.set_result(result)
