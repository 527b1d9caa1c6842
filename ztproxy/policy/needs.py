"""Which attributes policies can read: of caller and resource Cedar's own engine is told no more, of the
circumstances of a request compiled policies are not.

Used by `reference`, for what it is told costs Cedar several times as much as deciding, and by `compile` and
`folded`. Most attributes no policy asks for. Where it can not be seen what is read, all of it is told. What
one engine is spared the other one is told: were something forgotten here, they would disagree, which denies.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, TypeAlias

from cedarpy import pst

from ztproxy.model.subject import UNKNOWN
from ztproxy.policy.literals import to_json
from ztproxy.policy.render import children, path
from ztproxy.policy.values import Record, Value

#: Names of attributes, and of each what is needed of its value: None is all of it, and an empty mapping of a
#: record that it is there.
Needs: TypeAlias = Mapping[str, "Needs"] | None

EVERYTHING: Final[Mapping[str, Needs]] = {"principal": None, "resource": None, "context": None}

#: A path from a variable, and whether the value at its end is read or only asked for with `has`.
_Path: TypeAlias = tuple[tuple[str, ...], bool]

#: The attributes of `context` that some conditions can read; None: perhaps any of them.
Reads: TypeAlias = frozenset[str] | None

NOTHING: Final[frozenset[str]] = frozenset()

#: What there is under `context`: of what is read, each is one bit.
NOW: Final = 1
LOCAL: Final = 2
IP: Final = 4
HOST: Final = 8
PATH: Final = 16
METHOD: Final = 32
PROTOCOL: Final = 64
FEED_AGE: Final = 128
SOURCES: Final = 256
ALL: Final = 511
BITS: Final[Mapping[str, int]] = {
    "now": NOW,
    "local": LOCAL,
    "ip": IP,
    "host": HOST,
    "path": PATH,
    "method": METHOD,
    "protocol": PROTOCOL,
    "feed_age": FEED_AGE,
    "sources": SOURCES,
}

_ALL: Final[tuple[_Path, ...]] = ((("principal",), True), (("resource",), True), (("context",), True))


def needs_of(clauses: Iterable[pst.Clause]) -> dict[str, Needs]:
    """Return what these conditions need of each variable; one that is not there need not be read."""
    found: dict[str, Needs] = {}
    for clause in clauses:
        _add(found, clause.expr)
    return found


def of_context(node: pst.Expr) -> Reads:
    """Return which attributes of `context` evaluating an expression can read, or only ask for."""
    found: dict[str, Needs] = {"context": {}}
    _add(found, node)
    inner = found["context"]
    return None if inner is None else frozenset(inner)


def together(reads: Iterable[Reads]) -> Reads:
    """Return what is read by any of several conditions."""
    found = set[str]()
    for names in reads:
        if names is None:
            return None
        found |= names
    return frozenset(found)


def bits(reads: Reads) -> int:
    """Return what is read as a sum of bits. Names that are not there can be read by anybody."""
    return ALL if reads is None else sum(BITS.get(name, 0) for name in reads)


def _add(needs: dict[str, Needs], node: pst.Expr) -> None:
    for steps, whole in _read(node):
        _note(needs, steps, whole)


def _read(node: object) -> Iterator[_Path]:
    """Yield what evaluating an expression may read. An entity by itself is only its name."""
    steps = path(node)
    if len(steps) > 1 or steps == ("context",):
        yield steps, True
    elif isinstance(node, pst.HasAttr) and path(node.base):
        yield (*path(node.base), *node.attrs), False
    elif not steps:
        if isinstance(node, pst.GetAttr | pst.HasAttr):
            yield from _ALL  # of whatever the evaluation will come to
        for child in children(node):
            yield from _read(child)


def _note(needs: dict[str, Needs], steps: tuple[str, ...], whole: bool) -> None:
    name, rest = steps[0], steps[1:]
    inner = needs.setdefault(name, {})
    if whole and not rest:
        needs[name] = None
    elif rest and isinstance(inner, dict):
        _note(inner, rest, whole)


def narrowed(record: Record, needs: Needs) -> dict[str, object]:
    """Return what is needed of a record in Cedar's JSON form, without its unknown parts."""
    found: dict[str, object] = {}
    for name in record if needs is None else needs:
        value = record.get(name, UNKNOWN)
        if value is not UNKNOWN:
            found[name] = _json(value, None if needs is None else needs[name])
    return found


def _json(value: Value, needs: Needs) -> object:
    return to_json(value) if needs is None or type(value) is not dict else narrowed(value, needs)
