"""Connectors: a host of their own, and one for routes that name them."""

from collections.abc import Iterator

from ztproxy.config.places import Places
from ztproxy.config.problems import Problem
from ztproxy.config.settings import Settings
from ztproxy.config.yaml import Loc
from ztproxy.model.connector import BUNDLE


def own_host(settings: Settings, places: Places) -> Iterator[Problem]:
    """What else answers on the host of connectors: there, no other certificate and no cookie is believed."""
    if settings.connectors is None:
        return
    host, remedy = settings.connectors.host, "give connectors a host of their own"
    if host == settings.portal.host:
        yield places.problem("this host is the portal's", remedy, "connectors", "host")
    for index, route in enumerate(settings.route_settings):
        if route.from_.host == host:
            message = "this host is that of connectors"
            yield places.problem(message, "give the route another one", "routes", index, "from")
    for index, bundle in enumerate(settings.client_certificates):
        if bundle.name == BUNDLE:
            message = f"{BUNDLE!r} is the name of the built-in bundle of connectors"
            yield places.problem(message, "choose another name", "client_certificates", index, "name")


def missing(settings: Settings, places: Places) -> Iterator[Problem]:
    """Routes behind connectors that could dial in nowhere."""
    if settings.connectors is not None:
        return
    for loc in _named(settings):
        remedy = "add the section `connectors` with a `host`"
        yield places.problem("there is no place where connectors dial in", remedy, *loc)


def _named(settings: Settings) -> Iterator[Loc]:
    for index, route in enumerate(settings.route_settings):
        if route.connector is not None:
            yield "routes", index, "connector"
        for number, target in enumerate(route.to):
            if target.upstream.connector:
                yield "routes", index, "to", number, "connector"
