"""What several sections, or a section and the files it names, must agree on.

Called by `config.load` with settings whose sections are each valid by themselves. A check yields problems
and never raises; it names the sections it needs whole, and is left out when one of them is broken.
"""

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from ztproxy.config.checks import browsers, certificates, connectors, files, names, network
from ztproxy.config.places import Places
from ztproxy.config.problems import Problem
from ztproxy.config.settings import Settings


class Check(NamedTuple):
    """A check and the sections that must be whole for it to be fair."""

    find: Callable[[Settings, Places], Iterator[Problem]]
    needs: frozenset[str] = frozenset()


CHECKS: Final = (
    Check(names.twice),
    Check(names.reserved, frozenset({"portal"})),
    Check(names.strangers, frozenset({"identity"})),
    Check(names.overlapping),
    Check(names.unclaimed_workloads, frozenset({"client_certificates"})),
    Check(network.loops, frozenset({"listen", "portal", "external_port", "telemetry"})),
    Check(network.clashes, frozenset({"listen", "telemetry"})),
    Check(network.idle_tls_settings),
    Check(network.idle_balancing),
    Check(network.idle_prefixes),
    Check(browsers.cross_origin),
    Check(browsers.public),
    Check(connectors.own_host, frozenset({"connectors", "portal"})),
    Check(connectors.missing, frozenset({"connectors"})),
    Check(files.authorities),
    Check(files.state, frozenset({"state"})),
    Check(certificates.usable),
    Check(certificates.shown),
    Check(certificates.coverage, frozenset({"tls", "portal"})),
)


def find(settings: Settings, places: Places, broken: frozenset[str]) -> Iterator[Problem]:
    """Yield what the checks find, leaving out those that need a broken section."""
    for check in CHECKS:
        if not check.needs & broken:
            yield from check.find(settings, places)
