"""The children of one program version: a control process and its workers, each kept running.

Made by `service.supervisor`. A post is a role; the child that fills it may die and be followed by another.
"""

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from ztproxy.service.child import Child
from ztproxy.service.configuration import Configuration
from ztproxy.service.orders import Commit, Done, Drain, Forget, FromChild, Go, Hold, Note, Prepare, Ready
from ztproxy.service.orders import ToChild as Order
from ztproxy.service.sockets import Descriptors

log = logging.getLogger("ztproxy.supervisor")

STOP_TIMEOUT: Final = 15.0  # seconds for a child to end by itself, besides the time to drain
STEADY: Final = 10.0  # seconds of life after which a death is no longer "right after the start"
LONGEST_PAUSE: Final = 5.0  # seconds between restarts at the most

FAILURES: Final = 3  # children in a row that end at once: the next one would, too
LOOK: Final = 0.2  # seconds

_numbers: Final = count(1)


def number() -> int:
    """Return the number of a new question."""
    return next(_numbers)


class Program(Struct, frozen=True):
    """What to start for a post. Descriptors are passed on by their numbers."""

    name: str
    arguments: tuple[str, ...]
    descriptors: tuple[int, ...] = ()


def programs(config: Path, sockets: Descriptors) -> list[Program]:
    """Return the programs of one node: control first, then a worker for each socket."""
    common = ("--config", str(config), "--parent", str(os.getpid()))
    own = (sockets.link, sockets.portal, sockets.admin, sockets.telemetry)
    named = zip(("--link", "--portal", "--admin", "--telemetry"), map(str, own), strict=True)
    control = Program(
        name="control",
        arguments=(
            *("-m", "ztproxy.service.control", *common),
            *("--workers", str(len(sockets.workers))),
            *(word for option in named for word in option),
        ),
        descriptors=own,
    )
    workers = [
        Program(
            name=f"worker-{index}",
            arguments=(
                *("-m", "ztproxy.service.worker", *common),
                *("--index", str(index), "--workers", str(len(sockets.workers))),
                *("--listen", str(listening)),
            ),
            descriptors=(listening,),
        )
        for index, listening in enumerate(sockets.workers)
    ]
    return [control, *workers]


class Post:
    """One role, and the child that fills it. `hear` is told what a child says of its own accord."""

    def __init__(
        self,
        program: Program,
        configuration: Callable[[], int],
        hear: Callable[["Post", FromChild], None],
    ) -> None:
        self.program = program
        self.child: Child | None = None
        self.ready = asyncio.Event()  # as soon as the child has said so, until it ends
        self.failures = 0  # children in a row that ended without having been ready
        self._configuration = configuration
        self._hear = hear
        self._stop = asyncio.Event()
        self._patience = STOP_TIMEOUT
        self._asked: dict[int, asyncio.Future[str]] = {}

    async def keep(self) -> None:
        """Fill the post until `dismiss`: start a child whenever there is none, after a growing pause."""
        loop = asyncio.get_running_loop()
        pause = 0.0
        while not self._stop.is_set():
            born = loop.time()
            child = self.child = self.child or self._start()
            if child is not None:
                await self._serve(child)
                if self._stop.is_set():
                    return
                self._mourn(child)
            pause = 0.1 if loop.time() - born > STEADY else min(pause * 2 or 0.1, LONGEST_PAUSE)
            try:
                await asyncio.wait_for(self._stop.wait(), pause)
            except TimeoutError:
                continue

    def dismiss(self, patience: float) -> None:
        """End the child, which gets so many seconds, and start no other."""
        self._patience = patience
        self._stop.set()

    def order(self, order: Order, descriptor: int | None = None) -> bool:
        """Tell the child something; False when there is nobody to tell."""
        return self.child is not None and self.child.orders.send(order, descriptor)

    async def ask(
        self, order: Prepare | Commit | Note | Go | Hold, patience: float, descriptor: int | None = None
    ) -> str:
        """Tell the child something and wait until it is done; return why it could not be, "" for done."""
        answer = self._asked[order.ask] = asyncio.get_running_loop().create_future()
        try:
            if not self.order(order, descriptor):
                return f"{self.program.name} is not running"
            return await asyncio.wait_for(answer, patience)
        except TimeoutError:
            return f"{self.program.name} did not answer within {patience:.0f} seconds"
        finally:
            del self._asked[order.ask]

    def _start(self) -> Child | None:
        configuration = self._configuration()
        try:
            child = Child.start(
                (*self.program.arguments, "--configuration", str(configuration)),
                (*self.program.descriptors, configuration),
            )
        except OSError as error:
            log.error("a child can not be started", extra={"child": self.program.name, "reason": str(error)})
            return None
        log.info("started", extra={"child": self.program.name, "child_pid": child.pid})
        return child

    async def _serve(self, child: Child) -> None:
        """Listen to the child until it ends or is to be stopped."""
        listening = asyncio.create_task(self._listen(child))
        stopping = asyncio.create_task(self._stop.wait())
        either: set[asyncio.Future[Any]] = {child.ended, stopping}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not child.ended.done():
            await child.stop(self._patience)
        listening.cancel()
        await asyncio.wait({listening})
        child.orders.close()
        self.failures = 0 if self.ready.is_set() else self.failures + 1
        self.child = None
        self.ready.clear()
        for answer in self._asked.values():
            if not answer.done():
                answer.set_result(f"{self.program.name} ended")

    async def _listen(self, child: Child) -> None:
        while (heard := await child.orders.receive()) is not None:
            message, descriptor = heard
            if descriptor is not None:
                os.close(descriptor)
            if isinstance(message, Done):
                answer = self._asked.get(message.ask)
                if answer is not None and not answer.done():
                    answer.set_result(message.why)
                continue
            if isinstance(message, Ready):
                self.ready.set()
            self._hear(self, message)

    def _mourn(self, child: Child) -> None:
        log.error(
            "child ended, starting it again",
            extra={"child": self.program.name, "child_pid": child.pid, "status": child.ended.result()},
        )


class Crew:
    """The posts of one version of the program. `configuration` is what whoever is started next serves."""

    def __init__(
        self, made: Iterable[Program], configuration: Configuration, hear: Callable[[Post, FromChild], None]
    ) -> None:
        self.configuration = configuration
        self.control, *workers = (Post(one, lambda: self.configuration.descriptor, hear) for one in made)
        self.workers = tuple(workers)
        self.active = False  # its control process may have the state directory
        self._keeping: dict[Post, asyncio.Task[None]] = {}

    @property
    def posts(self) -> tuple[Post, ...]:
        """Control, then the workers."""
        return (self.control, *self.workers)

    def keep(self, posts: Iterable[Post]) -> None:
        """Have these posts filled from now on."""
        for post in posts:
            if post not in self._keeping:
                self._keeping[post] = asyncio.create_task(post.keep())

    async def ready(self, posts: Iterable[Post], patience: float) -> str:
        """Wait until the children of these posts are ready; return why not, "" when they are."""
        try:
            async with asyncio.timeout(patience):
                for post in posts:
                    while not post.ready.is_set():
                        if post.failures >= FAILURES:
                            return f"{post.program.name} ended {post.failures} times; see the log"
                        await _within(post.ready, LOOK)
        except TimeoutError:
            return f"{post.program.name} was not ready within {patience:.0f} seconds; see the log"
        return ""

    async def ended(self) -> None:
        """Wait until all posts are given up; raises what went wrong with keeping one."""
        while running := [task for task in self._keeping.values() if not task.done()]:
            await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for task in self._keeping.values():
            task.result()

    async def stop(self, patience: float) -> None:
        """End the workers, then control: what they decided has to be sealed."""
        await self.dismiss(self.workers, patience)
        await self.dismiss((self.control,), STOP_TIMEOUT)

    async def dismiss(self, posts: Iterable[Post], patience: float) -> None:
        """Give up some posts, and wait until their children are gone."""
        tasks = []
        for post in posts:
            post.dismiss(patience)
            if post in self._keeping:
                tasks.append(self._keeping[post])
        if tasks:
            await asyncio.wait(tasks)

    def order(self, order: Drain) -> None:
        """Tell all workers something."""
        for post in self.workers:
            post.order(order)

    def forget(self) -> None:
        """What was prepared will not be needed."""
        for post in self.posts:
            post.order(Forget())

    def kill(self, post: Post) -> None:
        """End a child at once; another one takes its place."""
        if post.child is not None:
            post.child.send(signal.SIGKILL)


async def _within(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
