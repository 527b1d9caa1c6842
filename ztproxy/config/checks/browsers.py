"""What routes promise to browsers and to everybody: nothing that can not be kept, and nothing said twice."""

from collections.abc import Iterator

from ztproxy.config.places import Places
from ztproxy.config.problems import Problem
from ztproxy.config.sections import Route
from ztproxy.config.settings import Settings


def cross_origin(settings: Settings, places: Places) -> Iterator[Problem]:
    """Rules for pages of other origins that can not work."""
    for index, route in enumerate(settings.route_settings):
        if route.cors is None:
            continue
        if route.client_certificate == "required":
            yield places.problem(
                "`cors` can not work here: browsers ask beforehand without a client certificate",
                "write `client_certificate: optional`, and demand one by policy",
                *("routes", index, "cors"),
                key=True,
            )
        changes = route.response_headers
        for name in (*(name for name, _ in changes.set), *changes.remove) if changes else ():
            if name.lower().startswith("access-control-"):
                message = f"{name} is what `cors` says already"
                yield places.problem(message, "leave it out", "routes", index, "response_headers")


def public(settings: Settings, places: Places) -> Iterator[Problem]:
    """Public paths that would not be public."""
    for index, route in enumerate(settings.route_settings):
        if route.public_methods and not route.public:
            message = "`public_methods` has no effect: no path is public"
            yield places.problem(message, "name paths at `public`", "routes", index, "public_methods")
        if route.public and route.client_certificate == "required":
            yield places.problem(
                "`public` can not work here: nobody gets in without a client certificate",
                "write `client_certificate: optional`, and demand one by policy",
                *("routes", index, "public"),
                key=True,
            )
        for number, path in enumerate(route.public):
            if message := _elsewhere(settings, route, path):
                remedy = "write it as callers do, below `from`"
                yield places.problem(message, remedy, "routes", index, "public", number)


def _elsewhere(settings: Settings, route: Route, path: str) -> str:
    """Say why a path is not this route's."""
    if not path.startswith(route.from_.prefix):
        return f"this path is outside of {route.from_}"
    prefixes = {
        other.from_.prefix: other.name
        for other in settings.route_settings
        if other.from_.host == route.from_.host and f"{path}/".startswith(other.from_.prefix)
    }
    owner = prefixes[max(prefixes, key=len)]
    return f"this path belongs to route {owner!r}" if owner != route.name else ""
