"""What the agent asks the portal for: enrols, reports, renews.

Called by `agent.program` and `agent.reporting`.
"""

import msgspec
from msgspec import Struct

from ztproxy.model.endpoints import ENROL, POSTURE, RENEW
from ztproxy.net.portal import JOSE, JSON, Credentials, post


class Issued(Struct, frozen=True):
    """A certificate as the portal hands it out."""

    device: dict[str, str]
    certificate: str
    not_after: int
    portal: str = ""


class Taken(Struct, frozen=True):
    """What the portal made of a report."""

    seq: int
    healthy: bool
    checks: dict[str, str] = {}


class Portal:
    """The portal at an origin."""

    def __init__(self, origin: str) -> None:
        self._origin = origin

    async def enrol(self, credentials: Credentials, code: str, csr: str, name: str) -> Issued:
        """Turn a code into a device. Raises PortalRefused, PortalUnreachable."""
        body = msgspec.json.encode({"code": code, "csr": csr, "name": name})
        return await post(self._origin + ENROL, body, JSON, credentials, Issued)

    async def report(self, credentials: Credentials, statement: str) -> Taken:
        """Send a signed posture document. Raises PortalRefused, PortalUnreachable."""
        return await post(self._origin + POSTURE, statement.encode(), JOSE, credentials, Taken)

    async def renew(self, credentials: Credentials, statement: str) -> Issued:
        """Ask for a new certificate. Raises PortalRefused, PortalUnreachable."""
        return await post(self._origin + RENEW, statement.encode(), JOSE, credentials, Issued)
