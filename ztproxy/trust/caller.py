"""Who asks, as `trust.gather` found out."""

from typing import Final, final

from ztproxy.model.standing import Lock
from ztproxy.model.subject import ANONYMOUS, Device, Facts, Handle, Posture


@final
class Caller:
    """Facts and what they came by: `handle` is the cookie's digest, `key` that or the certificate's
    fingerprint; "" without one. `spoken` is `trust.memory.Memory.spoken` when no lock was on them.

    What each of their requests asks of the facts stands here once more, where it costs nothing to read.
    What is not final is others' to note: `looked` is `Memory.changed` when `gather` saw that all of this is
    still so, and `made` what the door made of it.
    """

    __slots__ = (
        "bound_id", "device", "device_id", "expires_at", "facts", "handle", "host", "idle_limit", "issuer",
        "key", "looked", "made", "posture", "principal", "principal_id", "proved_at", "recheck_after",
        "reported_at", "seen_at", "session", "session_id", "sources", "spoken", "ticket", "whose",
    )  # fmt: skip

    def __init__(
        self,
        facts: Facts,
        handle: str = "",
        key: str = "",
        spoken: int = -1,
        recheck_after: int = 0,
        ticket: Handle | None = None,
    ) -> None:
        session, device, posture = facts.session, facts.device, facts.posture
        self.looked = -1
        self.made: object = None
        self.facts: Final = facts
        self.handle: Final = handle
        self.key: Final = key
        self.spoken: Final = spoken
        self.recheck_after: Final = recheck_after  # ms: what a provider said before has to be asked anew
        self.ticket: Final = ticket  # the cookie's record, when nothing else was shown
        self.host: Final = "" if ticket is None else ticket.host  # the one that the cookie was given to
        self.session: Final = session
        self.device: Final = device
        self.posture: Final = posture
        self.sources: Final = facts.sources
        self.principal: Final = facts.principal
        self.principal_id: Final = facts.principal.id
        self.issuer: Final = facts.principal.issuer if session is None else session.provider
        self.session_id: Final = "" if session is None else session.id
        self.bound_id: Final = (
            "" if session is None else session.device_id
        )  # also of a device that is revoked
        self.device_id: Final = device.id if isinstance(device, Device) else ""
        #: The session (or workload) and the device it comes from in one text: no id of a device holds a NUL.
        self.whose: Final = f"{self.session_id or self.principal_id}\0{self.device_id}"
        self.expires_at: Final = facts.certificate_expires_at if session is None else session.expires_at  # ms
        self.idle_limit: Final = 0 if session is None else session.idle_limit  # ms
        self.seen_at: Final = 0 if session is None else session.last_seen_at  # ms
        self.proved_at: Final = facts.device_proved_at if facts.device_proof else -1  # ms
        self.reported_at: Final = posture.reported_at if isinstance(posture, Posture) else -1  # ms


@final
class Locked:
    """A caller on whom a lock is. `everywhere`: at the portal, too, where else somebody may sign in anew."""

    __slots__ = ("caller", "everywhere", "lock")

    def __init__(self, caller: Caller, lock: Lock, everywhere: bool = False) -> None:
        self.caller: Final = caller
        self.lock: Final = lock
        self.everywhere: Final = everywhere


NOBODY: Final = Caller(facts=Facts(principal=ANONYMOUS))
