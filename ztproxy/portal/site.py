"""Where we are: our hosts and addresses, and which way back from a sign-in may be believed.

Pure. Used by every page of the portal.
"""

import re
from typing import Final
from urllib.parse import urlencode

from msgspec import Struct

from ztproxy.model.endpoints import OWN

_BACK_TO_OURS: Final = (OWN + "done",)

# What a browser can have asked for: visible ASCII. No backslash, browsers read it as a slash, and no second
# slash in front, which would be a host to them.
_PATH: Final = re.compile(r"/(?!/)[!-\[\]-~]*")
_ABSOLUTE: Final = re.compile(r"https://([a-z0-9.-]+)(?::([1-9][0-9]{0,4}))?(/(?!/)[!-\[\]-~]*)?")
_LONGEST: Final = 4096


class Address(Struct, frozen=True):
    """A place on one of our hosts. `path` starts with a slash and may have a query."""

    origin: str
    host: str
    path: str

    def __str__(self) -> str:
        return self.origin + self.path


class Site(Struct, frozen=True):
    """Our hosts as people see them."""

    host: str  # of the portal, lower-case, without port
    port: int  # that people see
    title: str
    hosts: frozenset[str]  # every host we answer on, the portal's too
    agent_ports: tuple[int, ...] = ()  # loopback ports the device agent may listen on
    posture_max_age: int = 15 * 60_000  # ms; an older report is shown as stale

    @property
    def origin(self) -> str:
        """The portal's origin, which is also the audience of device proofs."""
        return self.external(self.host)

    @property
    def home(self) -> Address:
        """The portal's first page."""
        return Address(origin=self.origin, host=self.host, path="/")

    def external(self, host: str) -> str:
        """Return the https origin of one of our hosts."""
        return f"https://{host}" if self.port == 443 else f"https://{host}:{self.port}"

    def way_back(self, text: str, host: str) -> Address:
        """Return the address `text` names as seen from `host`: a path there, or a URL of one of our hosts.

        Everything else, a foreign host above all, is answered with the portal's home: no open redirect.
        """
        found = self._read(text.partition("#")[0], host) if len(text) <= _LONGEST else None
        if found is None or (found.path.startswith(OWN) and found.path not in _BACK_TO_OURS):
            return self.home
        return found

    def _read(self, text: str, host: str) -> Address | None:
        if _PATH.fullmatch(text):
            return Address(origin=self.external(host), host=host, path=text)
        match = _ABSOLUTE.fullmatch(text)
        if match is None or match[1] not in self.hosts or int(match[2] or 443) != self.port:
            return None
        return Address(origin=self.external(match[1]), host=match[1], path=match[3] or "/")


def own(origin: str, name: str, **query: str) -> str:
    """Return the URL of one of our endpoints; empty values are left out."""
    given = urlencode({key: value for key, value in query.items() if value})
    return f"{origin}{OWN}{name}{'?' if given else ''}{given}"
