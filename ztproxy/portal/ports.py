"""What the portal asks of others: devices to believe a proof, applications to show.

Implemented in `administrator.devices` and by the control process; defined here, with their consumer.
"""

from collections.abc import Sequence
from typing import Protocol

from ztproxy.model.route import Route
from ztproxy.model.subject import Device, Posture, Session

#: One application as a session sees it: route, allowed, why not, remedies.
App = tuple[Route, bool, str, tuple[str, ...]]


class Devices(Protocol):
    """Knows the devices and believes their proofs (JWS of type device-proof+jwt)."""

    async def verify_proof(self, token: str, audience: str, nonce: str) -> Device:
        """Return the live device that signed. Raises administrator.enrolment.Refused."""

    async def get(self, device_id: str) -> Device | None:
        """Return a device, revoked or not."""

    async def posture(self, device_id: str) -> Posture | None:
        """Return the newest report about a device."""


class Apps(Protocol):
    """Knows what policy would say."""

    async def visible(self, session: Session) -> Sequence[App]:
        """Return the applications to show to this person, in their order."""
