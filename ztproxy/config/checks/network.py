"""Addresses: no upstream is ourselves, no two listeners want one port."""

import ipaddress
from collections.abc import Iterator

from ztproxy.config.places import Places
from ztproxy.config.problems import Problem
from ztproxy.config.settings import Settings
from ztproxy.config.values import Address, is_loopback
from ztproxy.model.resource import Upstream


def loops(settings: Settings, places: Places) -> Iterator[Problem]:
    """Upstreams that lead back to us."""
    hosts = settings.hosts() | ({settings.connectors.host} if settings.connectors else set())
    for index, route in enumerate(settings.route_settings):
        for number, target in enumerate(route.to):
            upstream = target.upstream
            if not (route.connector or upstream.connector) and (message := _own(upstream, settings, hosts)):
                remedy = "write the application's own address"
                yield places.problem(message, remedy, "routes", index, "to", number)


def _own(target: Upstream, settings: Settings, hosts: frozenset[str]) -> str:
    if target.scheme == "unix":
        inside = target.host.startswith(f"{settings.state_dir}/")
        return "this socket lies in ztproxy's own state directory" if inside else ""
    if target.host in hosts and target.port in {settings.listen.port, settings.public_port}:
        return "this address leads back to ztproxy"
    if _reaches(target, settings.listen):
        return "this is ztproxy's own listener"
    return "this is ztproxy's own telemetry listener" if _reaches(target, settings.telemetry.listen) else ""


def _reaches(target: Upstream, listen: Address) -> bool:
    """Tell whether a connection to `target` arrives at `listen` of this machine."""
    if target.port != listen.port:
        return False
    bound = ipaddress.ip_address(listen.host)
    if target.host == listen.host or target.host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        return True
    return is_loopback(target.host) and (
        bound.is_unspecified or (bound.is_loopback and not _is_ip(target.host))
    )


def _is_ip(text: str) -> bool:
    return ":" in text or text.replace(".", "").isdigit()


def clashes(settings: Settings, places: Places) -> Iterator[Problem]:
    """Two listeners on one address."""
    ours, theirs = settings.listen, settings.telemetry.listen
    same_host = ours.host == theirs.host or any(
        ipaddress.ip_address(one.host).is_unspecified for one in (ours, theirs)
    )
    if same_host and ours.port == theirs.port != 0:
        yield places.problem(
            "telemetry wants the port of the data plane", "choose another port", "telemetry", "listen"
        )


def idle_tls_settings(settings: Settings, places: Places) -> Iterator[Problem]:
    """TLS settings of an upstream that does not speak TLS: somebody believes it is protected."""
    for index, route in enumerate(settings.route_settings):
        plain = [target for target in route.to if target.upstream.scheme != "https"]
        if route.tls is not None and plain:
            yield places.problem(
                "`tls` has no effect: the upstream is not https",
                "write `to: https://…`, or remove `tls`",
                *("routes", index, "tls"),
                key=True,
            )


def idle_prefixes(settings: Settings, places: Places) -> Iterator[Problem]:
    """Path prefixes that change nothing."""
    for index, route in enumerate(settings.route_settings):
        at = ("routes", index)
        if route.strip_prefix and route.from_.prefix == "/":
            message = "`strip_prefix` has no effect: `from` has no path prefix"
            yield places.problem(message, "remove it", *at, "strip_prefix")
        if route.prefix == "/" or (route.prefix == route.from_.prefix and route.strip_prefix):
            message = "`prefix` has no effect: paths stay as they are"
            yield places.problem(message, "name the upstream's own prefix, or remove it", *at, "prefix")


def idle_balancing(settings: Settings, places: Places) -> Iterator[Problem]:
    """Settings for several targets where there is one: somebody believes that another one helps out."""
    for index, route in enumerate(settings.route_settings):
        if route.ejection is not None and len(route.to) == 1:
            yield places.problem(
                "`ejection` has no effect: there is one target, and it is never left out",
                "write several addresses at `to`, or remove `ejection`",
                *("routes", index, "ejection"),
                key=True,
            )
