"""A connector's own list of what may be reached through it, whatever a proxy asks.

Read from its own configuration, asked by `connector.link` for every connection. An entry is a protocol, a
host and a port, and all three must be exactly those that are asked for. A name on the list is resolved here,
by this machine, at each dial: whoever decides what that name means decides where it leads. So an address is
better than a name, and a name never leads to addresses that belong to a single link, nor to those where
clouds hand out credentials.
"""

import ipaddress
import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from msgspec import Struct

_PORTS: Final = {"http": 80, "https": 443}
_HOST: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]{0,251}[a-z0-9_])?", re.ASCII)
#: Where clouds tell a machine its credentials outside of its link: Amazon, Google, Alibaba, Azure, Oracle.
_CREDENTIALS: Final = frozenset(
    map(
        ipaddress.ip_address,
        ("fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "168.63.129.16", "192.0.0.192"),
    )
)
#: RFC 6052 section 2.1, RFC 4291 section 2.5.5.1.
_TRANSLATED: Final = ipaddress.ip_network("64:ff9b::/96")
_COMPATIBLE: Final = ipaddress.ip_network("::/96")
_HOW: Final = "write http://HOST:PORT, https://HOST:PORT, tcp://HOST:PORT or unix:/PATH"


class Place(Struct, frozen=True):
    """Something that may be reached. `scheme`: http, https, unix, or tcp for whatever speaks there."""

    scheme: str
    host: str
    port: int


def place(text: str) -> Place:
    """Read an entry of the list. Raises ValueError, which says what to write."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path.startswith("/") or "\0" in path or len(path.encode()) > 107:
            raise ValueError(f"{text!r} is not the path of a socket: {_HOW}")
        return Place("unix", path, 0)
    parts = urlsplit(text)
    try:
        port = _PORTS.get(parts.scheme, 0) if parts.port is None else parts.port
    except ValueError:
        port = 0
    if parts.scheme not in ("http", "https", "tcp") or not parts.hostname or not port:
        raise ValueError(f"{text!r} is no address: {_HOW}")
    if "@" in parts.netloc or parts.path not in ("", "/") or "?" in text or "#" in text:
        raise ValueError(f"{text!r} has more than protocol, host and port: {_HOW}")
    return Place(parts.scheme, _plain(parts.hostname, text), port)


def _plain(host: str, text: str) -> str:
    """Return a host in the only spelling that is compared."""
    if ":" in host or re.fullmatch(r"[0-9.]+", host):
        try:
            return str(ipaddress.ip_address(host))
        except ValueError:
            raise ValueError(f"{text!r} has no IP address: {_HOW}") from None
    if not _HOST.fullmatch(host) or ".." in host:
        raise ValueError(f"{text!r} has no host name: {_HOW}")
    return host


class Allowed:
    """The list."""

    def __init__(self, entries: Iterable[str]) -> None:
        """Raises ValueError for an entry that is none."""
        self._places = frozenset(map(place, entries))

    def __len__(self) -> int:
        return len(self._places)

    def permits(self, scheme: str, host: str, port: int) -> bool:
        """Tell whether exactly this is on the list. A socket is no port, so `tcp` never stands for one."""
        if Place(scheme, host, port) in self._places:
            return True
        return scheme in ("http", "https") and Place("tcp", host, port) in self._places


def leads_astray(host: str, address: str) -> bool:
    """Tell whether a name has come to mean an address that names on the list never stand for."""
    found = ipaddress.ip_address(address.partition("%")[0])
    inner = _inside(found) if isinstance(found, ipaddress.IPv6Address) else found
    if host == address or host == str(inner):
        return False  # the list says this very address
    return inner.is_link_local or inner.is_multicast or inner.is_unspecified or inner in _CREDENTIALS


def _inside(found: ipaddress.IPv6Address) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return the IPv4 address that an IPv6 one leads to by translation or in a tunnel, else itself."""
    inner = found.ipv4_mapped or found.sixtofour
    if inner is None and (found in _TRANSLATED or (found in _COMPATIBLE and int(found) > 1)):
        inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
    return found if inner is None else inner
