"""What the supervisor tells its children, and what they say back.

One socket pair for each child (SOCK_SEQPACKET: a message is a message, and a descriptor can go with it). The
supervisor asks, the child answers with `Done` and the number of the question. The format outlives versions of
the program: an upgraded supervisor orders children of the version before, so messages only ever gain fields.
"""

import asyncio
import os
import socket
from typing import Any, Final, Generic, TypeVar

import msgspec
from msgspec import Struct

from ztproxy.config.problems import Problem

MOST: Final = 64 << 10  # bytes of one message

In = TypeVar("In")


class Prepare(Struct, frozen=True, tag="prepare"):
    """Build what the configuration in the descriptor comes to, beside what is in force."""

    ask: int


class Commit(Struct, frozen=True, tag="commit"):
    """What was prepared is in force from now on."""

    ask: int


class Forget(Struct, frozen=True, tag="forget"):
    """What was prepared will not be needed."""


class Note(Struct, frozen=True, tag="note"):
    """To control: write down what happened to the configuration or to the program."""

    ask: int
    event: str  # "start", "reload", "upgrade"
    outcome: str  # "applied", "unchanged", "refused"
    by: str
    before: str = ""  # digest of the configuration, in hex
    after: str = ""
    policies: str = ""  # digest of the policy set after
    routes: int = 0
    detail: str = ""


class Go(Struct, frozen=True, tag="go"):
    """To control: the state directory is yours."""

    ask: int


class Hold(Struct, frozen=True, tag="hold"):
    """To control: let go of the state directory, and wait for Go."""

    ask: int


class Drain(Struct, frozen=True, tag="drain"):
    """To a worker: take no new connections, let what is under way finish, then end."""

    seconds: float


class Told(Struct, frozen=True, tag="told"):
    """To control: the answer to its Wanted."""

    ask: int
    done: bool
    text: str
    problems: tuple[Problem, ...] = ()


class Ready(Struct, frozen=True, tag="ready"):
    """A worker serves; control could, and waits for Go."""


class Done(Struct, frozen=True, tag="done"):
    """The answer to a question; `why` says why not, "" is yes."""

    ask: int
    why: str = ""


class Wanted(Struct, frozen=True, tag="wanted"):
    """From control: somebody asked it for a reload or an upgrade."""

    ask: int
    what: str
    by: str


ToChild = Prepare | Commit | Forget | Note | Go | Hold | Drain | Told
FromChild = Ready | Done | Wanted


class Orders(Generic[In]):
    """One end. `received` is the type of messages that come in (a tagged union)."""

    def __init__(self, end: socket.socket, received: Any) -> None:
        end.setblocking(False)
        self._end = end
        self._decode = msgspec.json.Decoder(received).decode

    def fileno(self) -> int:
        """Return the descriptor of this end."""
        return self._end.fileno()

    def send(self, message: Struct, descriptor: int | None = None) -> bool:
        """Say it now; False when the other end is gone or has stopped listening."""
        data = msgspec.json.encode(message)
        try:
            if descriptor is None:
                self._end.send(data)
            else:
                socket.send_fds(self._end, [data], [descriptor])
        except OSError:
            return False
        return True

    async def receive(self) -> tuple[In, int | None] | None:
        """Return the next message and the descriptor that came with it, which is the caller's to close.

        None: the other end is gone, or speaks another language.
        """
        while True:
            try:
                data, descriptors, _, _ = socket.recv_fds(self._end, MOST, 1)
            except BlockingIOError:
                await self._readable()
                continue
            except OSError:
                return None
            descriptor = descriptors[0] if descriptors else None
            try:
                return self._decode(data), descriptor
            except msgspec.MsgspecError:
                if descriptor is not None:
                    os.close(descriptor)
                return None

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        loop.add_reader(self._end, _resolve, ready)
        try:
            await ready
        finally:
            loop.remove_reader(self._end)

    def close(self) -> None:
        """Let go of this end."""
        self._end.close()


def _resolve(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def pair() -> tuple[Orders[FromChild], socket.socket]:
    """Return the supervisor's end, and the one to pass on to a child."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Orders(ours, FromChild), theirs


def of_child(descriptor: int) -> Orders[ToChild]:
    """Return the child's end from the descriptor it was started with."""
    return Orders(socket.socket(fileno=descriptor), ToChild)


def of_supervisor(descriptor: int) -> Orders[FromChild]:
    """Return the supervisor's end, inherited from the program it was before."""
    return Orders(socket.socket(fileno=descriptor), FromChild)
