"""Nodes that share a store: what each tells the others of itself. Values are stored, fed and frozen."""

import re
from typing import Final

from msgspec import Struct

#: What a node is called: its address in plain letters, so that two nodes never have the same name.
NAME: Final = re.compile(r"[0-9A-Za-z_-][0-9A-Za-z._-]{0,63}", re.ASCII)
_OTHER: Final = re.compile(r"[^0-9A-Za-z_-]")

#: The kind of their certificates in SPIFFE IDs, `spiffe://TRUST-DOMAIN/node/NAME`.
KIND: Final = "node"
#: Record kind of what their connectors carry.
LOAD: Final = "load"

#: The built-in trust bundle of nodes, and who vouches for them in locks and records.
BUNDLE: Final = "nodes"


class Node(Struct, frozen=True):
    """A node that has connectors, as long as it says so. Record kind "node", key its name."""

    name: str
    address: str  # HOST:PORT of its public listener, as other nodes reach it
    connectors: tuple[str, ...] = ()  # names it has ready connections of, in order


class Carried(Struct, frozen=True, array_like=True):
    """What a node has of one running connector."""

    key: str  # NAME/INSTANCE
    version: str
    ready: int  # connections that wait to carry
    carrying: int
    draining: bool = False


class Load(Struct, frozen=True):
    """What the connectors of a node carry there. Record kind "load", key its name."""

    node: str
    address: str  # as in Node; "" for a node on its own
    at: int  # ms, by the node's clock
    connectors: tuple[Carried, ...] = ()
    left_out: int = 0  # connectors that the record has no room for


def name_of(address: str) -> str:
    """Return what the node at HOST:PORT is called."""
    return _OTHER.sub("-", address)[-64:]


def node_of(spiffe_id: str) -> str | None:
    """Return the name in `spiffe://TRUST-DOMAIN/node/NAME`, None for another ID."""
    scheme, _, rest = spiffe_id.partition("://")
    parts = rest.split("/")
    if scheme != "spiffe" or len(parts) != 3 or parts[1] != KIND:
        return None
    return parts[2] if NAME.fullmatch(parts[2]) else None
