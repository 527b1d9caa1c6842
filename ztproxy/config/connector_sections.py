"""The section of connectors: where they dial in, and for how long they are believed.

Used by `settings`. What a connector itself reads is another file: see `connector.configuration`.
"""

from typing import Final

from pydantic import Field

from ztproxy.config.section import Section
from ztproxy.config.values import CertificateLife, DialAddress, FilePath, HostName

HOUR: Final = 3_600_000


class Connectors(Section):
    """Programs beside applications that nobody can reach from here: they dial in on a host of their own, show
    a certificate of the built-in authority, and carry what policy has permitted. Routes name them."""

    host: HostName
    """Host on which connectors dial in: no route's and not the portal's, and covered by a certificate."""
    certificate_lifetime: CertificateLife = 24 * HOUR
    """Life of connectors' certificates; they renew them in the last third of it."""
    node: DialAddress | None = None
    """`HOST:PORT` at which other nodes of the same store reach this one. Default: the address of `listen`, or
    the machine's name where that is everywhere."""
    ca: FilePath | None = None
    """PEM file of authorities of the certificate that other nodes show for `host`. Default: the system's; the
    certificate that this node itself shows for `host` is believed, too."""
    proxies: tuple[DialAddress, ...] = Field(default=(), max_length=64)
    """`HOST:PORT` of every node, as connectors reach them; they keep connections to all of them. Default: the
    host at the public port."""
