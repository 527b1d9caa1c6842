"""The two interfaces of state. One counter orders everything: a record's version is the number of the
change that wrote it, so "everything after version N" is exact after any gap. Each change carries a random
stamp: a reader whose stamp of version N is another one read another history (a restored backup, a failover
that lost writes, a database that was emptied and filled again), and is told so.

Implementations: `store.sqlite` (embedded default), `store.redis`. Called by the control process only;
workers hold a copy in memory (`trust.memory`) that the control process feeds. `Pot` is for the rates of
requests: it may forget, and is no part of a store.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from msgspec import Struct

from ztproxy.model.quota import Spent

#: Kind and key of a record.
Place = tuple[str, str]


class Versioned(Struct, frozen=True):
    """A stored value. `version` is the number of the change that wrote it."""

    kind: str
    key: str
    version: int
    value: bytes
    expires_at: int = 0  # ms since the epoch; 0 = never. Expired records are gone for every reader.


class Change(Struct, frozen=True):
    """One step of the feed. `value` is None when the record was deleted (or expired)."""

    version: int
    kind: str
    key: str
    value: bytes | None
    stamp: int = 0  # random, chosen when it was written


class Conflict(Exception):
    """The record's version is not the expected one; read again and decide anew."""


class StoreUnavailable(Exception):
    """The store can not be reached or can not write. Callers fail closed.

    Of a write this means that nobody knows whether it was done: it may be there, whole, or come to be there
    a little later. Versions keep a second attempt from being a second write.
    """


class Balance(NamedTuple):
    """What is left of each bucket, in order, less than nothing where too much was spent."""

    left: tuple[float, ...]
    nodes: int  # that took from the pot within the last seconds


class Records(Protocol):
    """Versioned values by kind and key."""

    async def get(self, kind: str, key: str) -> Versioned | None:
        """Return the live record, or None."""

    async def some(self, places: Sequence[Place]) -> Sequence[Versioned]:
        """Return those of these live records that there are, in this order; not as of one moment."""

    async def put(
        self, kind: str, key: str, value: bytes, *, if_version: int | None = None, expires_at: int = 0
    ) -> int:
        """Write and publish in one step, durable on return; return the new version.

        `if_version`: None writes whatever is there, 0 demands that nothing is there, N that version N is.
        Raises Conflict, StoreUnavailable.
        """

    async def scan(self, kind: str, *, after: str = "", limit: int = 1000) -> Sequence[Versioned]:
        """Return live records of a kind with keys greater than `after`, in key order."""

    async def delete(self, kind: str, key: str, *, if_version: int | None = None) -> bool:
        """Delete and publish; False when nothing was there. Raises Conflict, StoreUnavailable."""


class Feed(Protocol):
    """The ordered changes of all records."""

    async def head(self) -> int:
        """Return the number of the newest change, 0 when there was none."""

    async def position(self) -> tuple[int, int]:
        """Return number and stamp of the newest change: where a snapshot that is taken from now on begins."""

    async def after(
        self, version: int, *, stamp: int | None = None, limit: int = 1000
    ) -> Sequence[Change] | None:
        """Return changes after `version` in order; None when they are no longer kept (take a snapshot), or
        when the change of that number has not this `stamp`. Raises StoreUnavailable, also when the server
        that answers is not known to be the one that everybody writes to.
        """

    async def wait(self, version: int, seconds: float) -> bool:
        """Return True as soon as the head is past `version`, False after `seconds`."""


class Store(Records, Feed, Protocol):
    """Both at once, as every back end offers them."""

    async def sweep(self) -> int:
        """Delete and publish expired records; return how many. Back ends also do so by themselves."""

    async def close(self) -> None:
        """Let go of files and connections. Whatever was acknowledged stays."""


class Pot(Protocol):
    """The tokens of rates that many keep together: buckets as in `net.rate`, which may owe."""

    async def charge(self, spent: Sequence[Spent]) -> Balance:
        """Take what was spent, and return what is left. A bucket that is not known begins with what the
        first to ask believes is left of it. Raises StoreUnavailable.
        """

    async def close(self) -> None:
        """Let go of connections."""
