"""What every policy set contains, whoever wrote it: the way to the portal.

Signing in, enrolling a device and having it checked happen on the portal, so nobody may be locked out of
it by a rule meant for applications. Two things see to that: this permit, and that only policies whose scope
names the portal (`resource == Route::"portal"`, or `in App::"portal"`) concern it.
"""

from typing import Final

from ztproxy.model.resource import Route, Upstream

PORTAL: Final = "portal"

#: Beginning of ids that sets can not use.
RESERVED: Final = "ztproxy-"

FILE: Final = "built-in"

POLICIES: Final = f"""\
@id("ztproxy-portal")
@reason("The portal is open to everybody: it asks who they are.")
permit (principal, action in Action::"http", resource == Route::"{PORTAL}");
"""


def portal_of(routes: tuple[Route, ...]) -> Route:
    """Return the portal among the routes, or one that stands for it."""
    for route in routes:
        if route.portal:
            return route
    nowhere = Upstream(scheme="unix", host="/nonexistent", port=0)
    return Route(name=PORTAL, app=PORTAL, host="", prefix="/", upstream=nowhere, portal=True)
