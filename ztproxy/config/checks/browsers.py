"""What routes promise to browsers: nothing that browsers would not do, and nothing said twice."""

from collections.abc import Iterator

from ztproxy.config.places import Places
from ztproxy.config.problems import Problem
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
