"""Which route a request is for: host, then the longest prefix of whole path segments, by look-ups only.

Called by the gateway for every request, so it never scans: cost does not grow with the number of routes.
It decides nothing: what leads nowhere and what is forbidden end in the same refusal.
"""

from collections.abc import Iterable
from typing import Final

from ztproxy.model.endpoints import CARRY, OWN
from ztproxy.model.ports import Router
from ztproxy.model.request import NOWHERE, Resource
from ztproxy.model.route import Route

#: Paths of which it is remembered where they lead, all hosts together; beyond it all are looked up again.
#: None that is longer than so many characters.
REMEMBERED: Final = 4096
LONGEST: Final = 512


class RouteTable(Router):
    """The routing table: once made it only remembers what was asked, because the same is asked again."""

    __slots__ = ("_carries", "_deepest", "_hosts", "_portal", "_portal_host", "_remembered", "_room")

    def __init__(self, routes: Iterable[Route], portal: Route | None = None) -> None:
        """Raises ValueError for two routes on one place, and for places that are ours."""
        self._portal = _resource(portal) if portal else NOWHERE
        self._portal_host = portal.host if portal else ""
        self._hosts: dict[str, dict[str, Resource]] = {self._portal_host: {}} if portal else {}
        self._carries: dict[str, Resource] = {}  # by host, of which nothing else is anybody's
        for route in routes:
            if route.carries:
                self._carries[route.host] = _resource(route)
            elif not route.portal:
                self._add(route)
        if shared := self._hosts.keys() & self._carries.keys():
            raise ValueError(f"{min(shared)} belongs to connectors")
        self._deepest = {host: max(map(_depth, found), default=0) for host, found in self._hosts.items()}
        self._remembered: dict[str, dict[str, Resource]] = {host: {} for host in self._hosts}
        self._room = REMEMBERED

    def _add(self, route: Route) -> None:
        place = f"{route.host}{route.prefix}"
        if route.host == self._portal_host or (route.prefix + "/").startswith(OWN):
            raise ValueError(f"{place} belongs to the portal")
        prefix = route.prefix
        if not (prefix.startswith("/") and prefix.endswith("/")) or "//" in prefix:
            raise ValueError(f"the path prefix of {place} does not begin and end with one slash")
        found = self._hosts.setdefault(route.host, {})
        if prefix in found:
            raise ValueError(f"two routes for {place}")
        found[prefix] = _resource(route)

    def match(self, host: str, path: str) -> Resource:
        """Return what (lower-case host without port, path without query) leads to, NOWHERE if to nothing."""
        remembered = self._remembered.get(host)
        if remembered is None:
            return self._find(host, path)
        found = remembered.get(path)
        if found is None:
            found = self._find(host, path)
            if len(path) <= LONGEST:
                self._remember(remembered, path, found)
        return found

    def _remember(self, remembered: dict[str, Resource], path: str, found: Resource) -> None:
        if not self._room:
            for paths in self._remembered.values():
                paths.clear()
            self._room = REMEMBERED
        remembered[path] = found
        self._room -= 1

    def _find(self, host: str, path: str) -> Resource:
        prefixes = self._hosts.get(host)
        if prefixes is None or path[:1] != "/":
            return self._carries.get(host, NOWHERE) if f"{path}/".startswith(f"{CARRY}/") else NOWHERE
        if path.startswith(OWN) or path == OWN[:-1] or host == self._portal_host:
            return self._portal
        found = prefixes.get("/", NOWHERE)
        end = 0
        for _ in range(self._deepest[host]):  # the longest prefix comes last
            end = path.find("/", end + 1)
            if end < 0:  # the last segment may stand without its slash
                longer = prefixes.get(path + "/") if path[-1] != "/" else None
                return found if longer is None else longer
            longer = prefixes.get(path[: end + 1])
            if longer is not None:
                found = longer
        return found


def _resource(route: Route) -> Resource:
    return Resource("Route", route.name, route)


def _depth(prefix: str) -> int:
    return prefix.count("/") - 1
