"""Fields that a route has us add to requests, with the values of the decision.

Called by `administrator.access` when it makes a permit, for routes that have such fields. Pure. A value is
encoded before it is put in place, so no name of a person or group can end a line or look like another value.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Final, cast

from ztproxy.model.changes import Stamp, Variable
from ztproxy.model.route import Route
from ztproxy.model.subject import Device, Facts
from ztproxy.wire.text import field_list, field_text

#: Bytes of one value. Upstreams refuse longer heads, and groups left out could lift a rule that forbids.
LONGEST: Final = 8000


def stamped(stamps: Iterable[Stamp], facts: Facts, route: Route, request_id: str) -> tuple[bytes, ...] | None:
    """Return header lines without CRLF; None when a value is too long to be sent."""
    values = [(stamp.name, _value(stamp, facts, route, request_id)) for stamp in stamps]
    if any(len(value) > LONGEST for _, value in values):
        return None
    return tuple(b"%b: %b" % (name.encode("ascii"), value) for name, value in values if value)


def _value(stamp: Stamp, facts: Facts, route: Route, request_id: str) -> bytes:
    return b"".join(_pieces(stamp.parts, facts, route, request_id)).strip(b" ")


def _pieces(parts: tuple[str, ...], facts: Facts, route: Route, request_id: str) -> Iterator[bytes]:
    for number, part in enumerate(parts):
        if number % 2:
            yield _READ[cast("Variable", part)](facts, route, request_id)
        else:
            yield part.encode("ascii")


_READ: Final[dict[Variable, Callable[[Facts, Route, str], bytes]]] = {
    "principal.id": lambda facts, route, request_id: field_text(facts.principal.id),
    "principal.name": lambda facts, route, request_id: field_text(facts.principal.name),
    "principal.groups": lambda facts, route, request_id: field_list(facts.principal.groups),
    "session.id": lambda facts, route, request_id: field_text(facts.session.id if facts.session else ""),
    "device.id": lambda facts, route, request_id: field_text(
        facts.device.id if isinstance(facts.device, Device) else ""
    ),
    "decision.id": lambda facts, route, request_id: field_text(request_id),
    "route.name": lambda facts, route, request_id: field_text(route.name),
}
