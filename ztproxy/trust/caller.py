"""Who asks, as `trust.gather` found out."""

from typing import Final

from msgspec import Struct

from ztproxy.model.standing import Lock
from ztproxy.model.subject import ANONYMOUS, Facts


class Caller(Struct, frozen=True, gc=False):
    """Facts and what they came by: `handle` is the cookie's digest, `key` that or the certificate's
    fingerprint; "" without one. `spoken` is `trust.memory.Memory.spoken` when no lock was on them."""

    facts: Facts
    handle: str = ""
    key: str = ""
    spoken: int = -1


class Locked(Struct, frozen=True):
    """A caller on whom a lock is. `everywhere`: at the portal, too, where else somebody may sign in anew."""

    caller: Caller
    lock: Lock
    everywhere: bool = False


NOBODY: Final = Caller(facts=Facts(principal=ANONYMOUS))
