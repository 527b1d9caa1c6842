"""A worker's copy of the facts, so that a warm request is decided without asking anybody.

Fed in order by `service.link` from the control process; read by `trust.gather`. Never writes anywhere, and
keeps no fact longer than the feed says: a deletion in the feed is a deletion here.
"""

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from ztproxy.model.messages import Changed
from ztproxy.model.subject import Device, Handle, Posture, Session

#: What a change concerns: live paths are found by these.
Concern = tuple[Literal["session", "device", "handle"], str]

KINDS: dict[str, type[Any]] = {"session": Session, "handle": Handle, "device": Device, "posture": Posture}


class Memory:
    """Sessions, handles, devices and postures by key, and how far the feed has come.

    `monotonic` gives seconds; `feed_age` is what policies see of the control process being silent.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._decoders = {kind: msgspec.msgpack.Decoder(type_) for kind, type_ in KINDS.items()}
        self.sessions: dict[str, Session] = {}
        self.handles: dict[str, Handle] = {}
        self.devices: dict[str, Device] = {}
        self.postures: dict[str, Posture] = {}
        self.touched: dict[str, int] = {}  # session id -> ms of its last use here
        self.version = 0
        self._heard_at = -1e9  # never: so long ago that every limit is over
        self._tables: dict[str, dict[str, Any]] = {
            "session": self.sessions,
            "handle": self.handles,
            "device": self.devices,
            "posture": self.postures,
        }

    def forget(self) -> None:
        """Drop everything: a snapshot follows."""
        for table in self._tables.values():
            table.clear()
        self.version = 0

    def apply(self, change: Changed) -> Concern | None:
        """Take one change; return whom it concerns. Kinds that workers do not hold are passed over."""
        self.version = max(self.version, change.version)
        table = self._tables.get(change.kind)
        if table is None:
            return None
        value = None if change.value is None else self._decoders[change.kind].decode(change.value)
        if value is None or (isinstance(value, Session) and value.ended_at):
            table.pop(change.key, None)  # ended sessions are kept for the review, not here
            self.touched.pop(change.key, None)
        else:
            table[change.key] = value
        return _CONCERNS[change.kind](change.key)

    def heard(self, version: int) -> None:
        """Note that everything up to `version` is here, as of now."""
        self.version = max(self.version, version)
        self._heard_at = self._monotonic()

    def feed_age(self) -> int:
        """Return ms since the control process was last heard."""
        return int((self._monotonic() - self._heard_at) * 1000)


_CONCERNS: dict[str, Callable[[str], Concern]] = {
    "session": lambda key: ("session", key),
    "handle": lambda key: ("handle", key),
    "device": lambda key: ("device", key),
    "posture": lambda key: ("device", key),
}
