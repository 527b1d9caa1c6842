"""The parent of `ztproxy run`: holds sockets and the configuration in force, keeps control and workers up.

Made by `service.run`. It reads no request and speaks to nobody but its children; of the configuration it
knows no more than a summary. Reloads and upgrades come one after the other, never two at once; those that
are asked for meanwhile become one more.
"""

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, Final

from ztproxy.config.problems import Problem
from ztproxy.service.capture import Captured, capture_apart
from ztproxy.service.configuration import Configuration
from ztproxy.service.crew import STOP_TIMEOUT, Crew, Post, number, programs
from ztproxy.service.orders import Commit, Drain, FromChild, Go, Note, Prepare, Ready, Told, Wanted
from ztproxy.service.sockets import Sockets
from ztproxy.service.standby import Standby
from ztproxy.service.watch import Watch
from ztproxy.telemetry.log import configure

log = logging.getLogger("ztproxy.supervisor")

PREPARE: Final = 120.0  # seconds for a child to build the parts of a configuration
ATTEMPTS: Final = 2  # a child that is killed meanwhile says nothing about the configuration
COMMIT: Final = 15.0  # seconds to swap one reference
NOTE: Final = 15.0
GO: Final = 60.0  # seconds for control to open the state directory
TOLD: Final = 100  # problems that are passed on

#: Signals that end a process which does not listen to them; blocked until this one does, so that they wait.
ASKING: Final = frozenset({signal.SIGHUP, signal.SIGUSR2})

#: (done, words, problems) for whoever asked.
Answer = Callable[[bool, str, tuple[Problem, ...]], None]


#: What a supervisor does first: fills the posts.
First = Callable[["Supervisor"], Coroutine[Any, Any, None]]


class Refused(Exception):
    """What was asked for can not be; nothing has changed."""

    def __init__(self, why: str, problems: tuple[Problem, ...] = ()) -> None:
        super().__init__(why)
        self.problems = problems


class Supervisor:
    """One node: its sockets and its crew. `become` replaces the program, see `service.upgrade`."""

    def __init__(
        self,
        config: Path,
        sockets: Sockets,
        in_force: Configuration,
        become: Callable[["Supervisor", Configuration, str, str], None],
        standby: Standby | None = None,
    ) -> None:
        self.config = config
        self.standby = standby
        self.sockets = sockets
        self.crew = self.new_crew(in_force)
        self.leaving: list[Crew] = []  # finish what is under way
        self._become = become
        self._stop = asyncio.Event()
        self._asked: list[tuple[str, str, Answer]] = []
        self._work = asyncio.Event()
        self._watch = Watch(in_force.summary.read)
        self._going: set[asyncio.Task[None]] = set()
        self._started = False

    @property
    def in_force(self) -> Configuration:
        """The configuration that is served."""
        return self.crew.configuration

    def new_crew(self, configuration: Configuration) -> Crew:
        """Return a crew of the program as it lies on disk, with nobody in it yet."""
        return Crew(programs(self.config, self.sockets.descriptors), configuration, self._hear)

    # ------------------------------------------------------------------ running

    async def run(self, first: First) -> None:
        """Do `first`, which fills the posts, then keep them filled until SIGTERM or SIGINT."""
        self._listen_to_signals()
        self._begin(self._run(first))
        await self._stop.wait()
        for task in self._going:
            task.cancel()
        await asyncio.wait(self._going)
        patience = self.in_force.summary.drain + STOP_TIMEOUT
        leaving = (one.stop(patience) for one in self.leaving)
        await asyncio.gather(self.crew.dismiss(self.crew.workers, patience), *leaving)
        await self.crew.stop(patience)  # control last: what those before decided has to be sealed, too

    async def _run(self, first: First) -> None:
        await first(self)
        self._begin(self._look_at_files())
        while True:
            await self._work.wait()
            self._work.clear()
            asked, self._asked = self._asked, []
            await self._do("reload", self.reload, asked)
            await self._do("upgrade", self.upgrade, asked)

    async def start(self) -> None:
        """Fill the posts of a new node."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKING)  # children would inherit it
        self.crew.active = True
        self.crew.keep(self.crew.posts)

    def succeeded(self, crew: Crew, drain: float) -> None:
        """From now on this crew is the one that counts; the one before gets so many seconds to finish."""
        old, self.crew = self.crew, crew
        self.leaving.append(old)
        self._started = True
        self._begin(self._see_off(old, drain))

    async def _see_off(self, crew: Crew, drain: float) -> None:
        crew.order(Drain(seconds=drain))
        await crew.dismiss((crew.control,), STOP_TIMEOUT)  # it has let go already
        await crew.stop(drain + STOP_TIMEOUT)
        self.leaving.remove(crew)
        crew.configuration.close()

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for stopping in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(stopping, self._end)
        loop.add_signal_handler(signal.SIGHUP, self.want, "reload", "SIGHUP")
        loop.add_signal_handler(signal.SIGUSR2, self.want, "upgrade", "SIGUSR2")

    def _end(self) -> None:
        """Stop; who asks a second time has no patience with what is under way."""
        if self._stop.is_set():
            for crew in (*self.leaving, self.crew):
                crew.order(Drain(seconds=0.0))
        self._stop.set()

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._going.add(task)
        task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._going.discard(task)
        if not task.cancelled() and (bug := task.exception()) is not None:
            log.critical("the supervisor failed, stopping", exc_info=bug)
            self._stop.set()

    async def _look_at_files(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._watch.pause)
            if self.in_force.summary.watch and await asyncio.to_thread(self._watch.changed, loop.time()):
                self.want("reload", "file change")

    # ------------------------------------------------------------------ what children say

    def _hear(self, post: Post, message: FromChild) -> None:
        if isinstance(message, Wanted):
            self.want(message.what, message.by, _to_child(post, message.ask))
        elif isinstance(message, Ready) and post is self.crew.control and self.crew.active:
            self._begin(self._let_go(post))

    async def _let_go(self, control: Post) -> None:
        """Give the state directory to a control process that was just started."""
        if why := await control.ask(Go(number()), GO):
            log.error("control does not start", extra={"reason": why})
            self.crew.kill(control)
        elif not self._started:
            self._started = True
            await self.note("start", "applied", "ztproxy run", self.in_force)

    # ------------------------------------------------------------------ what is wanted

    def want(self, what: str, by: str, answer: Answer | None = None) -> None:
        """Have it done as soon as nothing else is being done."""
        self._asked.append((what, by, answer or _to_nobody))
        self._work.set()

    async def _do(
        self,
        what: str,
        work: Callable[[str, Callable[[str], None]], Coroutine[Any, Any, str]],
        asked: Iterable[tuple[str, str, Answer]],
    ) -> None:
        wanted = [(by, answer) for one, by, answer in asked if one == what]
        if not wanted:
            return

        def begun(text: str) -> None:
            while wanted:
                wanted.pop()[1](True, text, ())

        by = ", ".join(dict.fromkeys(by for by, _ in wanted))[:200]
        done, problems = True, tuple[Problem, ...]()
        try:
            text = await work(by, begun)
        except Refused as refused:
            text, done, problems = str(refused), False, refused.problems[:TOLD]
            await self.note(what, "refused", by, self.in_force, detail=text)
            log.error(f"{what} refused, nothing has changed", extra={"by": by, "reason": text})
        else:
            log.info(f"{what} done", extra={"by": by, "result": text})
        for _, answer in wanted:
            answer(done, text, problems)

    async def reload(self, by: str, begun: Callable[[str], None]) -> str:
        """Take up the files as they are now: everywhere, or nowhere. Raises Refused."""
        found = await self._captured(self.standby)
        before = self.in_force
        if found.same_as(before):
            found.close()
            await self.note("reload", "unchanged", by, before)
            return f"unchanged, in force: {before.summary}"
        try:
            if why := await self._prepared(found) or await self.note("reload", "applied", by, found):
                raise Refused(why)
        except BaseException:
            self.crew.forget()
            found.close()
            raise
        self.crew.configuration = found  # from here on whoever starts anew serves the new one, too
        await asyncio.gather(*map(self._committed, self.crew.posts))
        if found.summary.log != before.summary.log:
            configure(*found.summary.log)
        for crew in self.leaving:  # they were not asked, so they do not go on
            crew.order(Drain(seconds=0.0))
        before.close()
        return f"in force: {found.summary}"

    async def upgrade(self, by: str, begun: Callable[[str], None]) -> str:
        """Become the program that lies on disk now. Never returns; raises Refused."""
        while self.leaving:  # noqa: ASYNC110 - seldom; the new program would not know those
            await asyncio.sleep(0.2)
        found = await self._captured()
        try:
            if why := await self.crew.ready(self.crew.posts, STOP_TIMEOUT):
                raise Refused(why)
            begun("the new program takes over")
            signal.pthread_sigmask(signal.SIG_BLOCK, ASKING)  # what comes now waits for the next program
            try:
                for _ in range(3):
                    await asyncio.sleep(0)  # and what came before is heard
                later = self._put_off()
                try:
                    self._become(self, found, by, later)
                except OSError as error:
                    if later:
                        self.want("reload", later)
                    raise Refused(f"the program can not be started: {error}") from error
            finally:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKING)  # there is no next one: they are for us
        finally:
            found.close()
        raise AssertionError("two programs in one process")

    def _put_off(self) -> str:
        """Return by whom reloads were asked for meanwhile, for the next program to do. Who waits for an
        answer gets it from this one.
        """
        asked, self._asked = self._asked, []
        for _, _, answer in asked:
            answer(False, "the program is just being replaced: ask again", ())
        return ", ".join(dict.fromkeys(by for what, by, _ in asked if what == "reload"))

    async def _captured(self, standby: Standby | None = None) -> Configuration:
        self._watch.begin()
        found = await capture_apart(self.config, self.in_force, standby)
        if isinstance(found, Captured):
            self._watch.follow((*self.in_force.summary.read, *found.read))
            raise Refused("\n".join(map(str, found.problems[:TOLD])), found.problems)
        self._watch.follow(found.summary.read)
        return found

    async def _prepared(self, found: Configuration) -> str:
        """Have every child build its parts; return why one can not."""
        few = asyncio.Semaphore(max(1, (os.cpu_count() or 1) // 2))  # those who serve need the rest

        async def prepare(post: Post) -> str:
            async with few:
                why = ""
                for _ in range(ATTEMPTS):
                    if why := await self.crew.ready((post,), PREPARE):
                        return why
                    child = post.child
                    why = await post.ask(Prepare(number()), PREPARE, found.descriptor)
                    if not why or post.child is child:
                        break
                return why

        if why := await prepare(self.crew.control):
            return why
        return next(filter(None, await asyncio.gather(*map(prepare, self.crew.workers))), "")

    async def _committed(self, post: Post) -> None:
        """Swap; a child that has nothing to swap, as it was started meanwhile, is started once more."""
        child = post.child
        if why := await post.ask(Commit(number()), COMMIT):
            log.warning("a child starts anew", extra={"child": post.program.name, "reason": why})
            if child is not None and post.child is child:
                self.crew.kill(post)

    async def note(self, event: str, outcome: str, by: str, after: Configuration, *, detail: str = "") -> str:
        """Have it written down; return why it was not."""
        summary = after.summary
        message = Note(
            ask=number(),
            event=event,
            outcome=outcome,
            by=by,
            before=self.in_force.summary.digest,
            after=summary.digest,
            policies=summary.policies,
            routes=summary.routes,
            detail=detail[:2000],
        )
        return await self.crew.control.ask(message, NOTE)


def _to_child(post: Post, ask: int) -> Answer:
    def answer(done: bool, text: str, problems: tuple[Problem, ...]) -> None:
        post.order(Told(ask, done, text, problems))

    return answer


def _to_nobody(done: bool, text: str, problems: tuple[Problem, ...]) -> None:
    """A signal waits for no answer; the log has it."""
