"""What the policy engine answered, and what a refused caller is told."""

from msgspec import Struct

from ztproxy.model.decided import Decision, DecisionKind

__all__ = ["Decision", "DecisionKind", "Explanation", "NearMiss", "Refusal"]


class NearMiss(Struct, frozen=True):
    """A permit that would have applied had its failed conditions held. For the record, not for the caller."""

    policy: str
    failed: tuple[str, ...]  # conditions as Cedar text, with the values they read
    remedy: tuple[str, ...] = ()
    reason: str = ""


class Explanation(Struct, frozen=True):
    """Why a request was refused and what would change it."""

    reasons: tuple[str, ...]  # @reason of forbids or of the nearest misses
    remedies: tuple[str, ...]  # stable words: "sign-in", "step-up-mfa", "recheck-device", …
    near_misses: tuple[NearMiss, ...] = ()


class Refusal(Struct, frozen=True):
    """A request that does not go through. `gateway.refusals` is the one place that makes bytes of it."""

    code: str  # stable: see model.codes
    status: int  # HTTP status
    decision_id: str  # request id
    remedies: tuple[str, ...] = ()
    reason: str = ""  # a sentence for the caller; reveals no policy, host or version
    close: bool = False  # the connection can not be used any further
    retry_after: int = 0  # seconds
    detail: str = ""  # for the record, never for the caller: a word of wire.flaws, or a lock
