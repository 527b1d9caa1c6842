"""The permit: proof that the one door said yes. `upstream` does not dial without one."""

from msgspec import Struct
from msgspec.structs import force_setattr

from ztproxy.model._seal import SEAL, Seal
from ztproxy.model.request import AccessRequest
from ztproxy.model.resource import Route


class Permit(Struct, frozen=True, gc=False):
    """One allowed action, with the *resolved* route, so that nothing is looked up twice.

    Only `administrator.access` can make one: the seal is checked at construction and taken off again, so
    changing a copy (`msgspec.structs.replace`), decoding one or building one by hand raises TypeError.
    """

    decision_id: str
    request: AccessRequest  # what was asked, so that a live path can be decided again
    route: Route
    principal_id: str
    issuer: str  # identity provider of the session, trust bundle of the workload; "" for anonymous callers
    session_id: str  # "" for workloads and anonymous callers
    device_id: str  # also one that its session is bound to and that is revoked; "" without a device
    handle: str  # SHA-256 hex of the cookie value that carried it, "" without
    expires_at: int  # ms; the path is cut then at the latest
    identity: tuple[bytes, ...]  # header lines without CRLF that tell the upstream who asks
    obligations: tuple[tuple[str, str], ...]
    seal: Seal | None  # None as soon as it is checked: a permit does not carry what makes permits

    def __post_init__(self) -> None:
        if self.seal is not SEAL:
            raise TypeError("a Permit is minted by administrator.access only")
        force_setattr(self, "seal", None)
