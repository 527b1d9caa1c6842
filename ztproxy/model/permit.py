"""The permit: proof that the one door said yes. `upstream` does not dial without one."""

from typing import ClassVar, Final, final

from ztproxy.model._seal import SEAL, Seal, closed
from ztproxy.model.frozen import Frozen
from ztproxy.model.native import mypyc_attr
from ztproxy.model.request import AccessRequest
from ztproxy.model.route import Route

#: Where compiled code finds it without looking up a name.
_SEAL: Final = SEAL


@final
@mypyc_attr(acyclic=True)
class Permit(Frozen):
    """One allowed action, with the *resolved* route, so that nothing is looked up twice.

    Only `administrator.access` can make one: the seal is asked for at construction and not kept, so changing
    one or a copy, or building one by hand, raises TypeError or AttributeError.
    """

    __slots__ = (
        "decision_id", "device_id", "expires_at", "handle", "identity", "issuer", "obligations",
        "principal_id", "request", "route", "session_id",
    )  # fmt: skip

    FIELDS: ClassVar[tuple[str, ...]] = (
        "decision_id", "request", "route", "principal_id", "issuer", "session_id", "device_id", "handle",
        "expires_at", "identity", "obligations",
    )  # fmt: skip

    def __init__(
        self,
        decision_id: str,
        request: AccessRequest,
        route: Route,
        principal_id: str,
        issuer: str,
        session_id: str,
        device_id: str,
        handle: str,
        expires_at: int,
        identity: bytes,
        obligations: tuple[tuple[str, str], ...],
        seal: Seal,
    ) -> None:
        if seal is not _SEAL:
            raise TypeError("a Permit is minted by administrator.access only")
        self.decision_id: Final = decision_id
        self.request: Final = request  # what was asked, so that a live path can be decided again
        self.route: Final = route
        self.principal_id: Final = principal_id
        #: Identity provider of the session, trust bundle of the workload; "" for anonymous callers.
        self.issuer: Final = issuer
        self.session_id: Final = session_id  # "" for workloads and anonymous callers
        #: Also one that its session is bound to and that is revoked; "" without a device.
        self.device_id: Final = device_id
        self.handle: Final = handle  # SHA-256 hex of the cookie value that carried it, "" without
        self.expires_at: Final = expires_at  # ms; the path is cut then at the latest
        self.identity: Final = identity  # header lines that tell the upstream who asks, each ended by CRLF
        self.obligations: Final = obligations

    def __repr__(self) -> str:
        """What it is, without the assertion that it carries for the upstream."""
        return f"Permit({self.decision_id!r}, route={self.route.name!r}, session={self.session_id!r})"


closed(Permit)
