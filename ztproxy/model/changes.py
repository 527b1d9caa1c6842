"""What a route changes in the messages that pass: worked out when the configuration is loaded.

Built by `config`, read by `gateway.rewriting` and `administrator.stamping`. A route that changes nothing has
none of this, and its requests pay for one look.
"""

from typing import Final, Literal, get_args

from msgspec import Struct

#: What the values of request fields can speak of.
Variable = Literal[
    "principal.id",
    "principal.name",
    "principal.groups",
    "session.id",
    "device.id",
    "decision.id",
    "route.name",
]
VARIABLES: Final[tuple[Variable, ...]] = get_args(Variable)


class Rewrite(Struct, frozen=True, gc=False):
    """Two names for the same thing: `outer` is how callers speak of it, `inner` how the upstream does."""

    outer: str = "/"  # beginning of paths: "/" or "/x/"
    inner: str = "/"
    authorities: frozenset[str] = frozenset()  # the upstream's own, lower-case, as it may write them in URLs
    hosts: frozenset[str] = frozenset()  # the same without ports, as it may write them in cookies


class Stamp(Struct, frozen=True, gc=False):
    """A field that upstreams get from us. Its value is made for each request."""

    name: str
    parts: tuple[str, ...]  # text, variable, text, variable, …, text


class RequestFields(Struct, frozen=True, gc=False):
    """Fields of requests: `stamps` come from us, `drop` (plain names) never passes in any spelling."""

    stamps: tuple[Stamp, ...] = ()
    drop: frozenset[bytes] = frozenset()


class ResponseFields(Struct, frozen=True, gc=False):
    """Fields of responses: `lines` come from us, each ended by CRLF; `drop` (plain) does not pass."""

    lines: bytes = b""
    drop: frozenset[bytes] = frozenset()


class Cors(Struct, frozen=True, gc=False):
    """What browsers are told about requests by pages of other origins. Lines are ended by CRLF."""

    origins: frozenset[str] = frozenset()  # exact; empty: every origin, without credentials
    preflight: bytes = b""  # lines of the answer to a preflight, besides the origin
    actual: bytes = b""  # lines of every other answer, likewise


class Changes(Struct, frozen=True, gc=False):
    """All that a route changes."""

    rewrite: Rewrite | None = None
    request: RequestFields | None = None
    response: ResponseFields | None = None
    cors: Cors | None = None
