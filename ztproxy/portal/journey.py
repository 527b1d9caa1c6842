"""Where a person is on the way to, carried through every step of a sign-in. Pure."""

import re
from collections.abc import Mapping
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from ztproxy.portal.site import Address, Site, own

#: A sign-in starts over by itself this often: once per host whose flow cookie another tab replaced.
MOST_RESTARTS: Final = 2
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


class Journey(Struct, frozen=True):
    """The way back, the browser it leads to, and how often it started over."""

    back: Address
    flow: str = ""  # digest of the flow cookie on the host of `back`, "" unless that is an application's
    restarts: int = 0

    def over_again(self) -> "Journey | None":
        """Return the same journey started over, None when that happened often enough."""
        return replace(self, restarts=self.restarts + 1) if self.restarts < MOST_RESTARTS else None

    def at(self, origin: str, name: str, **query: str) -> str:
        """Return the URL of the step `name` of this journey."""
        return own(origin, name, rd=str(self.back), flow=self.flow, restarts=self._count, **query)

    def at_app(self, name: str, **query: str) -> str:
        """Return the URL of a step on the application's own host, which needs the path alone."""
        return own(self.back.origin, name, rd=self.back.path, restarts=self._count, **query)

    @property
    def _count(self) -> str:
        return str(self.restarts) if self.restarts else ""


def journey_of(query: Mapping[str, str], site: Site, host: str, default: str = "") -> Journey:
    """Read a journey from a query; what can not be believed leads to the portal's home."""
    flow, restarts = query.get("flow", ""), query.get("restarts", "0")
    return Journey(
        back=site.way_back(query.get("rd", default), host),
        flow=flow if _DIGEST.fullmatch(flow) else "",
        restarts=int(restarts) if restarts in ("0", "1", "2") else MOST_RESTARTS,
    )
