"""Which attributes of caller and resource policies can read: Cedar's own engine is told no more.

Used by `reference`, for what it is told costs Cedar several times as much as deciding. Most attributes no
policy asks for. Where it can not be seen what is read, all of it is told. Were something forgotten here, the
engines would disagree, which denies.
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

_ALL: Final[tuple[_Path, ...]] = ((("principal",), True), (("resource",), True), (("context",), True))


def needs_of(clauses: Iterable[pst.Clause]) -> dict[str, Needs]:
    """Return what these conditions need of each variable; one that is not there need not be read."""
    found: dict[str, Needs] = {}
    for clause in clauses:
        _add(found, clause.expr)
    return found


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
