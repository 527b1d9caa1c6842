"""What every policy set contains, whoever wrote it: the way to the portal, and that of connectors, if any.

Signing in, enrolling a device and having it checked happen on the portal, so nobody may be locked out of
it by a rule meant for applications. Two things see to that: this permit, and that only policies whose scope
names the portal (`resource == Route::"portal"`, or `in App::"portal"`) concern it. The same holds for the
place where connectors dial in: a rule for applications says nothing about the program that carries.
"""

from collections.abc import Iterable
from typing import Final

from ztproxy.model.resource import Upstream
from ztproxy.model.route import Route

PORTAL: Final = "portal"
CONNECTORS: Final = "ztproxy-connectors"

#: Beginning of ids that sets can not use.
RESERVED: Final = "ztproxy-"

FILE: Final = "built-in"

POLICIES: Final = f"""\
@id("ztproxy-portal")
@reason("The portal is open to everybody: it asks who they are.")
permit (principal, action in Action::"http", resource == Route::"{PORTAL}");
"""

_OF_CONNECTORS: Final = f"""\
@id("{CONNECTORS}")
@reason("Enrolled connectors dial in to carry, and nodes to borrow from each other.")
permit (principal is Workload, action == Action::"GET", resource == Route::"{CONNECTORS}");
"""


def policies_for(routes: Iterable[Route]) -> str:
    """Return the policies that a set for these routes contains by itself."""
    return POLICIES + (_OF_CONNECTORS if any(route.carries for route in routes) else "")


def portal_of(routes: tuple[Route, ...]) -> Route:
    """Return the portal among the routes, or one that stands for it."""
    for route in routes:
        if route.portal:
            return route
    nowhere = Upstream(scheme="unix", host="/nonexistent", port=0)
    return Route(name=PORTAL, app=PORTAL, host="", prefix="/", upstream=nowhere, portal=True)
