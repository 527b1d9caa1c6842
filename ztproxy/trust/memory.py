"""A worker's copy of the facts, so that a warm request is decided without asking anybody.

Fed in order by `service.link` from the control process; read by `trust.gather`. Never writes anywhere, and
keeps no fact longer than the feed says: a deletion in the feed is a deletion here. What it can not read
speaks against whomever it may be about: it never keeps a door open that it may have been meant to close.
"""

import logging
from collections.abc import Callable
from typing import Any, Final, Literal

import msgspec

from ztproxy.model.connector import Connector
from ztproxy.model.messages import Changed
from ztproxy.model.node import Node
from ztproxy.model.standing import LOCKABLE, Lock, Source, Standing
from ztproxy.model.subject import Device, Handle, Posture, Session

log = logging.getLogger("ztproxy.memory")

#: The age of the feed (ms) while something in it can not be read: so old that every limit is over,
#: also those that say "as long as the path itself".
UNREADABLE: Final = (1 << 62) + 1

#: What a change concerns: live paths are found by these.
Concern = tuple[
    Literal["session", "device", "handle", "principal", "route", "issuer", "credential", "connector"], str
]

KINDS: dict[str, type[Any]] = {
    "lock": Lock,
    "standing": Standing,
    "source": Source,
    "session": Session,
    "handle": Handle,
    "device": Device,
    "posture": Posture,
    "connector": Connector,
    "node": Node,
}


class Memory:
    """Everything that is stored about callers, by key, and how far the feed has come.

    `monotonic` gives seconds; `feed_age` is what policies see of the control process being silent. `locked`
    holds the locks by what they are on. `spoken` counts the changes of locks and standings: whoever keeps
    what follows from them asks anew when it is another. `changed` counts changes of anything.
    `unread` are locks nobody here understands: as long as there is one, nothing counts as known.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._decoders = {kind: msgspec.msgpack.Decoder(type_) for kind, type_ in KINDS.items()}
        self.sessions: dict[str, Session] = {}
        self.handles: dict[str, Handle] = {}
        self.devices: dict[str, Device] = {}
        self.postures: dict[str, Posture] = {}
        self.connectors: dict[str, Connector] = {}
        self.nodes: dict[str, Node] = {}  # those that have connectors
        self.locks: dict[str, Lock] = {}
        self.locked: dict[tuple[str, str], tuple[Lock, ...]] = {}
        self.standings: dict[str, Standing] = {}
        self.sources: dict[str, Source] = {}
        self.unread: set[str] = set()
        self.spoken = 0
        self.changed = 0
        self.touched: dict[str, int] = {}  # session id -> ms of its last use here
        self.version = 0
        self._heard_at = -1e9  # never: so long ago that every limit is over
        self._tables = self._all()

    def _all(self) -> dict[str, dict[str, Any]]:
        return {
            "session": self.sessions,
            "handle": self.handles,
            "device": self.devices,
            "posture": self.postures,
            "connector": self.connectors,
            "node": self.nodes,
            "lock": self.locks,
            "standing": self.standings,
            "source": self.sources,
        }

    def tables(self) -> dict[str, dict[str, Any]]:
        """Return what is held, by kind; to be read at once."""
        return self._tables

    def another(self) -> "Memory":
        """Return an empty one, to be filled beside this one."""
        return Memory(self._monotonic)

    def become(self, other: "Memory") -> None:
        """Hold what the other one holds, in one step. The other one is not to be used any more."""
        self.sessions, self.handles = other.sessions, other.handles
        self.devices, self.postures = other.devices, other.postures
        self.connectors, self.nodes = other.connectors, other.nodes
        self.locks, self.locked = other.locks, other.locked
        self.standings, self.sources = other.standings, other.sources
        self.unread = other.unread
        self._tables = self._all()
        self.touched = {key: at for key, at in self.touched.items() if key in self.sessions}
        self.spoken += 1
        self.changed += 1
        self.version = other.version

    def apply(self, change: Changed) -> tuple[Concern, ...]:
        """Take one change; return whom it concerns. Kinds that workers do not hold are passed over."""
        self.version = max(self.version, change.version)
        self.changed += 1
        table = self._tables.get(change.kind)
        if table is None:
            return ()
        value = None if change.value is None else self._read(change.kind, change.key, change.value)
        if change.kind == "lock":
            self._understand(change.key, value, given=change.value is not None)
        before = table.get(change.key)
        if value is None or (isinstance(value, Session) and value.ended_at):
            table.pop(change.key, None)  # ended sessions are kept for the review, not here
            self.touched.pop(change.key, None)
        else:
            table[change.key] = value
        if isinstance(before, Lock | Standing) or isinstance(value, Lock | Standing):
            return self._speaks(before, value)
        return _CONCERNS[change.kind](change.key)

    def _read(self, kind: str, key: str, value: bytes) -> Any:
        """Return what was written, by whatever version of us. Of what can not be read, the worst is believed:
        nobody is vouched for, and whoever was spoken of has nothing left from before."""
        try:
            return self._decoders[kind].decode(value)
        except msgspec.MsgspecError as error:
            log.error("a record can not be read", extra={"kind": kind, "reason": str(error)[:200]})
        if kind != "standing":
            return None
        target, _, whose = key.partition(":")
        return Standing(target, whose, risk="high", compliance="not-compliant", ended_before=UNREADABLE)

    def _understand(self, key: str, lock: Lock | None, *, given: bool) -> None:
        """Note whether a lock is one of those that are understood here."""
        if given and (lock is None or lock.target not in LOCKABLE):
            self.unread.add(key)
            log.critical("a lock is not understood: everybody is refused until it is gone", extra={"id": key})
        else:
            self.unread.discard(key)

    def _speaks(self, before: Lock | Standing | None, after: Lock | Standing | None) -> tuple[Concern, ...]:
        """Enter what is said of somebody or something; a lock may have been on another before."""
        self.spoken += 1
        if isinstance(before, Lock):
            place = before.target, before.value
            left = tuple(lock for lock in self.locked.get(place, ()) if lock.id != before.id)
            if left:
                self.locked[place] = left
            else:
                self.locked.pop(place, None)
        if isinstance(after, Lock):
            place = after.target, after.value
            self.locked[place] = (*self.locked.get(place, ()), after)
        concerns = [_concern(one.target, one.value) for one in (before, after) if one is not None]
        return tuple(dict.fromkeys(concerns))

    def lock_on(self, target: str, value: str, now: int) -> Lock | None:
        """Return a lock that is on it at `now` (ms), if any. Its own expiry ends a lock, heard or not."""
        for lock in self.locked.get((target, value), ()):
            if not lock.expires_at or now < lock.expires_at:
                return lock
        return None

    def heard(self, version: int, as_of: float | None = None) -> None:
        """Note that everything up to `version` is here, and was all there was at `as_of` (default: now)."""
        self.version = max(self.version, version)
        now = self._monotonic()
        self._heard_at = max(self._heard_at, now if as_of is None else min(as_of, now))

    def feed_age(self) -> int:
        """Return ms since it was last known that nothing newer is in the store, and all of it understood."""
        if self.unread:
            return UNREADABLE
        return int((self._monotonic() - self._heard_at) * 1000)


_CONCERNS: dict[str, Callable[[str], tuple[Concern, ...]]] = {
    "session": lambda key: (("session", key),),
    "handle": lambda key: (("handle", key),),
    "device": lambda key: (("device", key),),
    "posture": lambda key: (("device", key),),
    "connector": lambda key: (("connector", key),),
    "node": lambda _: (),  # says where something is, and of nobody whether they may
    "lock": lambda _: (),  # gone before it came
    "standing": lambda _: (),
    "source": lambda _: (),  # its age is decided by in time, not by this
}

_CONCERNED: dict[str, Callable[[str], Concern]] = {
    "user": lambda value: ("principal", value),
    "workload": lambda value: ("principal", value),
    "device": lambda value: ("device", value),
    "session": lambda value: ("session", value),
    "route": lambda value: ("route", value),
    "issuer": lambda value: ("issuer", value),
    "credential": lambda value: ("credential", value),
}


def _concern(target: str, value: str) -> Concern:
    """Return what a word about `target` concerns. A target of later versions is nobody's here."""
    known = _CONCERNED.get(target)
    return ("principal", value) if known is None else known(value)
