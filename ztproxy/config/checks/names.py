"""Names: given once, not reserved, and meaning something."""

from collections.abc import Iterable, Iterator

from ztproxy.config.places import Places
from ztproxy.config.problems import Problem
from ztproxy.config.settings import Settings
from ztproxy.config.translate import CONNECTORS, PORTAL

#: The bundle of certificates that the built-in authority gives to enrolled devices.
DEVICES = "devices"


def twice(settings: Settings, places: Places) -> Iterator[Problem]:
    """Names that are given twice in one list."""
    yield from _twice(places, ("routes",), "name", (route.name for route in settings.route_settings))
    providers = settings.identity.providers
    yield from _twice(places, ("identity", "providers"), "name", (provider.name for provider in providers))
    bundles = settings.client_certificates
    yield from _twice(places, ("client_certificates",), "name", (bundle.name for bundle in bundles))
    signals = settings.signals
    yield from _twice(
        places,
        ("signals", "transmitters"),
        "name",
        (transmitter.name for transmitter in signals.transmitters),
    )
    yield from _twice(
        places, ("signals", "receivers"), "name", (receiver.name for receiver in signals.receivers)
    )
    yield from _twice(places, ("workloads",), "id", (workload.id for workload in settings.workloads))


def _twice(places: Places, above: tuple[str, ...], key: str, names: Iterable[str]) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for index, name in enumerate(names):
        if name in first:
            line = places.line(*above, first[name], key)
            yield places.problem(
                f"{name!r} is already taken on line {line}", "choose another name", *above, index, key
            )
        first.setdefault(name, index)


def strangers(settings: Settings, places: Places) -> Iterator[Problem]:
    """Signals about people of providers that nobody configured."""
    known = {provider.name for provider in settings.identity.providers}
    for index, transmitter in enumerate(settings.signals.transmitters):
        at = ("signals", "transmitters", index)
        for number, name in enumerate(transmitter.providers or ()):
            if name not in known:
                yield _stranger(places, name, *at, "providers", number)
        for number, entry in enumerate(transmitter.issuers):
            if entry.provider not in known:
                yield _stranger(places, entry.provider, *at, "issuers", number, "provider")


def _stranger(places: Places, name: str, *at: str | int) -> Problem:
    return places.problem(
        f"there is no provider {name!r} in `identity.providers`", "name one of them, or add it", *at
    )


def reserved(settings: Settings, places: Places) -> Iterator[Problem]:
    """Names and hosts that are ours."""
    for index, route in enumerate(settings.route_settings):
        for key, name in (("name", route.name), ("app", route.app)):
            if name in (PORTAL, CONNECTORS):
                message = f"{name!r} is the name of the built-in route"
                yield places.problem(message, "choose another name", "routes", index, key)
        if route.from_.host == settings.portal.host:
            yield places.problem(
                "this host is the portal's", "give the route a host of its own", "routes", index, "from"
            )
    for index, bundle in enumerate(settings.client_certificates):
        if bundle.name == DEVICES:
            yield places.problem(
                "'devices' is the name of the built-in bundle",
                "choose another name",
                "client_certificates",
                index,
                "name",
            )


def overlapping(settings: Settings, places: Places) -> Iterator[Problem]:
    """Two routes for one host and prefix."""
    first: dict[tuple[str, str], int] = {}
    for index, route in enumerate(settings.route_settings):
        place = (route.from_.host, route.from_.prefix)
        if place in first:
            taken = settings.route_settings[first[place]].name
            line = places.line("routes", first[place], "from")
            yield places.problem(
                f"route {taken!r} on line {line} answers on {route.from_} already",
                "use another host or path prefix",
                *("routes", index, "from"),
            )
        first.setdefault(place, index)


def unclaimed_workloads(settings: Settings, places: Places) -> Iterator[Problem]:
    """Workloads that no trust bundle can prove."""
    bundles = [bundle for bundle in settings.client_certificates if bundle.kind == "workload"]
    domains = {bundle.trust_domain for bundle in bundles}
    for index, workload in enumerate(settings.workloads):
        if workload.id.startswith("spiffe://"):
            domain = workload.id.removeprefix("spiffe://").partition("/")[0]
            proved = domain in domains or None in domains
        else:
            proved = None in domains
        if not proved:
            yield places.problem(
                "no bundle of `client_certificates` accepts this workload",
                "add the bundle of its trust domain, or remove the workload",
                *("workloads", index, "id"),
            )
