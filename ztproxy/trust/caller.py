"""Who asks, as `trust.gather` found out."""

from typing import Final, final

from ztproxy.model.standing import Lock
from ztproxy.model.subject import ANONYMOUS, Facts


@final
class Caller:
    """Facts and what they came by: `handle` is the cookie's digest, `key` that or the certificate's
    fingerprint; "" without one. `spoken` is `trust.memory.Memory.spoken` when no lock was on them."""

    __slots__ = ("facts", "handle", "key", "recheck_after", "spoken")

    def __init__(
        self, facts: Facts, handle: str = "", key: str = "", spoken: int = -1, recheck_after: int = 0
    ) -> None:
        self.facts: Final = facts
        self.handle: Final = handle
        self.key: Final = key
        self.spoken: Final = spoken
        self.recheck_after: Final = recheck_after  # ms: what a provider said before has to be asked anew


@final
class Locked:
    """A caller on whom a lock is. `everywhere`: at the portal, too, where else somebody may sign in anew."""

    __slots__ = ("caller", "everywhere", "lock")

    def __init__(self, caller: Caller, lock: Lock, everywhere: bool = False) -> None:
        self.caller: Final = caller
        self.lock: Final = lock
        self.everywhere: Final = everywhere


NOBODY: Final = Caller(facts=Facts(principal=ANONYMOUS))
