"""Another version of the program in the place of the running one, without a connection refused or dropped.

The supervisor replaces its own program by execve(2): process id, sockets, the lock of the state directory and
all children stay. The new program starts a crew of its own beside the old one and lets it in step by step;
if it does not get ready, the old crew goes on as if nothing had been. Only one control process at a time may
have the state directory: the old one lets go and waits, and is told to go on if the new one fails.

`become` is called by the old program, everything else by the new one. What passes between them (`HandOver`)
only ever gains fields.
"""

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from ztproxy import __version__
from ztproxy.service.child import Child
from ztproxy.service.configuration import Configuration, Summary
from ztproxy.service.crew import Crew, number
from ztproxy.service.orders import Go, Hold
from ztproxy.service.sockets import Descriptors, Sockets
from ztproxy.service.standby import Standby
from ztproxy.service.supervisor import ASKING, GO, First, Supervisor

log = logging.getLogger("ztproxy.supervisor")

VARIABLE: Final = "ZTPROXY_HANDOVER"
STAND: Final = 60.0  # seconds for the new control process to load
HOLD: Final = 20.0  # seconds for the old one to let go
SERVE: Final = 90.0  # seconds for new workers to serve


class Inherited(Struct, frozen=True):
    """A child of the program before."""

    name: str
    pid: int
    orders: int


class HandOver(Struct, frozen=True):
    """What the old program leaves to the new one; numbers are descriptors."""

    version: str
    by: str
    lock: int
    sockets: Descriptors
    in_force: Summary
    in_force_memory: int
    next: Summary
    next_memory: int
    children: tuple[Inherited, ...]
    reload: str = ""  # by whom one was asked for meanwhile


def becoming(lock: int) -> Callable[[Supervisor, Configuration, str, str], None]:
    """Return `become` for a process that holds this lock."""

    def become(supervisor: Supervisor, found: Configuration, by: str, later: str) -> None:
        """Replace the program. Raises OSError; then everything is as it was."""
        crew, in_force = supervisor.crew, supervisor.in_force
        children = tuple(
            Inherited(post.program.name, post.child.pid, post.child.orders.fileno())
            for post in crew.posts
            if post.child is not None
        )
        hand_over = HandOver(
            version=__version__,
            by=by,
            lock=lock,
            sockets=supervisor.sockets.descriptors,
            in_force=in_force.summary,
            in_force_memory=in_force.descriptor,
            next=found.summary,
            next_memory=found.descriptor,
            children=children,
            reload=later,
        )
        if supervisor.standby is not None:
            supervisor.standby.end()  # it would be a child that nobody knows of
            supervisor.standby = None
        with _inheritable(hand_over):
            text = msgspec.json.encode(hand_over).decode()
            os.execve(  # noqa: S606 - our own program
                sys.executable, sys.orig_argv, {**os.environ, VARIABLE: text}
            )

    return become


@contextlib.contextmanager
def _inheritable(hand_over: HandOver) -> Iterator[None]:
    numbers = {
        *(hand_over.lock, hand_over.in_force_memory, hand_over.next_memory),
        *(child.orders for child in hand_over.children),
        *hand_over.sockets.workers,
        *(hand_over.sockets.link, hand_over.sockets.portal),
        *(hand_over.sockets.admin, hand_over.sockets.telemetry),
    }
    for one in numbers:
        os.set_inheritable(one, True)
    try:
        yield
    finally:
        for one in numbers:
            os.set_inheritable(one, False)


# ---------------------------------------------------------------------- in the new program


def handed_over() -> HandOver | None:
    """Return what the program before has left, None when there was none. Raises ValueError."""
    text = os.environ.pop(VARIABLE, "")
    if not text:
        return None
    left = msgspec.json.decode(text, type=HandOver)
    for one in (left.lock, left.in_force_memory, left.next_memory):
        os.set_inheritable(one, False)
    return left


def succeed(left: HandOver, config: Path, standby: Standby) -> tuple[Supervisor, First]:
    """Return the supervisor of the node that was left to us, and what it has to do first."""
    in_force = Configuration(left.in_force, left.in_force_memory)
    supervisor = Supervisor(config, Sockets.inherit(left.sockets), in_force, becoming(left.lock), standby)
    return supervisor, lambda supervisor: _take_over(supervisor, left)


async def _take_over(supervisor: Supervisor, left: HandOver) -> None:
    """Let a new crew in beside the one that was left to us, or go on with that."""
    old, found = supervisor.crew, Configuration(left.next, left.next_memory)
    _adopt(old, left)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKING)  # not before there is somebody to be told of a reload
    if by := left.reload or ("file change" if left.next.watch else ""):
        supervisor.want("reload", by)  # what has changed since the files were read was seen by nobody
    new = supervisor.new_crew(found)
    try:
        why = await _let_in(old, new)
    except BaseException:
        await _send_away(old, new)
        raise
    if why:
        await _send_away(old, new)
        log.error("upgrade refused, the old program goes on", extra={"by": left.by, "reason": why})
        await supervisor.note("upgrade", "refused", left.by, old.configuration, detail=why)
        found.close()
        return
    alike = found.same_as(old.configuration)
    supervisor.succeeded(new, old.configuration.summary.drain if alike else 0.0)
    log.info("upgrade done", extra={"by": left.by, "from": left.version, "to": __version__})
    await supervisor.note("upgrade", "applied", left.by, found, detail=f"{left.version} to {__version__}")


def _adopt(old: Crew, left: HandOver) -> None:
    children = {child.name: child for child in left.children}
    for post in old.posts:
        child = children.get(post.program.name)
        if child is not None:
            with contextlib.suppress(OSError):  # it ended meanwhile, and is started again
                post.child = Child.inherit(child.pid, child.orders)
                post.ready.set()
    old.active = True
    old.keep(old.posts)


async def _let_in(old: Crew, new: Crew) -> str:
    """Start the new crew and move the state directory over; return why that can not be."""
    new.keep((new.control,))
    if why := await new.ready((new.control,), STAND):
        return why
    old.active = False
    if why := await old.control.ask(Hold(number()), HOLD):
        log.warning("control of the old program does not let go, ending it", extra={"reason": why})
        old.kill(old.control)
    new.active = True
    if why := await new.control.ask(Go(number()), GO):
        return why
    new.keep(new.workers)
    return await new.ready(new.workers, SERVE)


async def _send_away(old: Crew, new: Crew) -> None:
    """End the new crew; only when its control process is gone may the old one go on."""
    new.active = False
    await new.stop(0.0)
    if old.active:
        return
    old.active = True
    if old.control.ready.is_set() and (why := await old.control.ask(Go(number()), GO)):
        log.error("control of the old program does not go on", extra={"reason": why})
        old.kill(old.control)
