"""Cedar's operations, one function each: every operand is checked, whatever the schema promised.

Called by the closures that `compile` makes. An operation returns a value or raises EvalError; it never
guesses, never converts, and never lets an unknown fact through.
"""

from collections.abc import Mapping
from typing import Final, final

from ztproxy.model.native import mypyc_attr
from ztproxy.model.subject import UNKNOWN
from ztproxy.policy.around import Around
from ztproxy.policy.literals import long
from ztproxy.policy.values import (
    CedarSet,
    Datetime,
    Decimal,
    Duration,
    Entity,
    Ip,
    Record,
    Uid,
    Value,
    equal,
    fail,
    key,
)


@final
@mypyc_attr(acyclic=True)
class Env:
    """What a policy is evaluated in. One for each decision, and read at every step: slots of C.

    Few of them: what belongs to the caller or the resource is read where it lies, by whoever wants it. To
    hold on to a thing is to write to it, and with many routes it has left the caches of the processor.
    The circumstances are `around`, or a record of anything, which the tests of Cedar's corpus have.
    """

    __slots__ = ("_record", "action", "around", "store", "stranger", "what", "who")

    def __init__(
        self,
        who: Entity,
        action: Uid,
        what: Entity,
        around: Around | None,
        store: Mapping[Uid, Entity],
        record: Record | None = None,
        stranger: bool = False,
    ) -> None:
        self.who: Final = who  # the principal
        self.action: Final = action
        self.what: Final = what  # the resource
        self.around: Final = around
        self.store: Final = store  # known entities; the principal need not be there
        self.stranger: Final = stranger  # the principal is an entity of which nothing is known
        self._record = record

    @property
    def principal(self) -> Uid:
        """The principal's name."""
        return self.who.uid

    @property
    def resource(self) -> Uid:
        """The resource's name."""
        return self.what.uid

    @property
    def attributes(self) -> Record:
        """Attributes of the principal."""
        return self.who.attributes

    @property
    def paths(self) -> dict[str, Value]:
        """The same by path (`values.Entity.paths`)."""
        return self.who.paths

    @property
    def lineage(self) -> frozenset[Uid]:
        """The principal with its ancestors."""
        return self.who.lineage

    @property
    def place(self) -> Record:
        """Attributes of the resource."""
        return self.what.attributes

    @property
    def context(self) -> Record:
        """All circumstances as one value."""
        record = self._record
        if record is None:
            record = self._record = self.around.record() if self.around is not None else {}
        return record


_DAY: Final = 86_400_000


def entity(uid: Uid, env: Env) -> Entity | None:
    """Return what is known of an entity; the principal comes first, it is different in each request."""
    if uid == env.principal:
        return None if env.stranger else env.who
    return env.store.get(uid)


def boolean(value: Value) -> bool:
    """Return a bool as it is."""
    return value if type(value) is bool else fail("not a bool")


# ------------------------------------------------------------------ attributes and tags


def known(value: Value, name: str) -> Value:
    """Return a value that is not UNKNOWN."""
    return value if value is not UNKNOWN else fail(f"unknown fact {name}")


def attribute(base: Value, name: str, env: Env) -> Value:
    """`base.name`."""
    record = _attributes(base, env)
    if record is None:
        fail(f"missing entity {base!r}")
    return known(record[name], name) if name in record else fail(f"missing attribute {name}")


def has(base: Value, name: str, env: Env) -> bool:
    """`base has name`. Whether an unknown fact is there is unknown too."""
    record = _attributes(base, env)
    if record is None or name not in record:
        return False
    known(record[name], name)
    return True


def _attributes(base: Value, env: Env) -> Record | None:
    if type(base) is dict:
        return base
    if type(base) is not Uid:
        fail("attribute of something that is neither record nor entity")
    found = entity(base, env)
    return None if found is None else found.attributes


def has_tag(base: Value, name: Value, env: Env) -> bool:
    """`base.hasTag(name)`."""
    if type(base) is not Uid or type(name) is not str:
        fail()
    found = entity(base, env)
    if found is None or name not in found.tags:
        return False
    known(found.tags[name], name)
    return True


def get_tag(base: Value, name: Value, env: Env) -> Value:
    """`base.getTag(name)`."""
    if type(base) is not Uid or type(name) is not str:
        fail()
    found = entity(base, env) or fail(f"missing entity {base!r}")
    return known(found.tags[name], name) if name in found.tags else fail(f"missing tag {name}")


# ------------------------------------------------------------------ entities, sets, strings


def inside(left: Value, right: Value, env: Env) -> bool:
    """`left in right`: the same entity or one below it; `right` may be a set of entities."""
    if type(left) is not Uid:
        fail()
    above = (right,) if type(right) is Uid else right.values if type(right) is CedarSet else fail()
    if any(type(one) is not Uid for one in above):
        fail()
    if left in above:
        return True
    found = entity(left, env)
    return found is not None and not found.ancestors.isdisjoint(above)


def is_type(value: Value, name: str) -> bool:
    """`value is Name`."""
    return value.type == name if type(value) is Uid else fail()


def contains(container: Value, element: Value) -> bool:
    """`container.contains(element)`."""
    return key(element) in container.keys if type(container) is CedarSet else fail()


def contains_all(left: Value, right: Value) -> bool:
    """`left.containsAll(right)`."""
    return right.keys <= left.keys if type(left) is CedarSet and type(right) is CedarSet else fail()


def contains_any(left: Value, right: Value) -> bool:
    """`left.containsAny(right)`."""
    both = type(left) is CedarSet and type(right) is CedarSet
    return not left.keys.isdisjoint(right.keys) if both else fail()


def is_empty(value: Value) -> bool:
    """`value.isEmpty()`."""
    return not value.keys if type(value) is CedarSet else fail()


def like(value: Value, pieces: tuple[str, ...]) -> bool:
    """Match the pieces between wildcards in order, without regular expressions and backtracking."""
    if type(value) is not str:
        fail()
    if len(pieces) == 1:
        return bool(value == pieces[0])
    if not value.startswith(pieces[0]):
        return False
    position = len(pieces[0])
    for piece in pieces[1:-1]:
        found = value.find(piece, position)
        if found < 0:
            return False
        position = found + len(piece)
    return len(value) - position >= len(pieces[-1]) and value.endswith(pieces[-1])


# ------------------------------------------------------------------ comparisons and arithmetic


def less(left: Value, right: Value) -> bool:
    """`left < right` for longs, datetimes and durations."""
    kind = type(left)
    if kind is not type(right) or (kind is not int and kind is not Datetime and kind is not Duration):
        fail()
    return bool(left < right)


def less_equal(left: Value, right: Value) -> bool:
    """`left <= right` for longs, datetimes and durations."""
    kind = type(left)
    if kind is not type(right) or (kind is not int and kind is not Datetime and kind is not Duration):
        fail()
    return bool(left <= right)


def differ(left: Value, right: Value) -> bool:
    """`left != right`."""
    return not equal(left, right)


def negate(value: Value) -> int:
    """`-value`."""
    return long(-value) if type(value) is int else fail()


def add(left: Value, right: Value) -> int:
    """`left + right`."""
    return long(left + right) if type(left) is int and type(right) is int else fail()


def subtract(left: Value, right: Value) -> int:
    """`left - right`."""
    return long(left - right) if type(left) is int and type(right) is int else fail()


def multiply(left: Value, right: Value) -> int:
    """`left * right`."""
    return long(left * right) if type(left) is int and type(right) is int else fail()


def decimal_less(left: Value, right: Value) -> bool:
    """`left.lessThan(right)`."""
    return bool(left < right) if type(left) is Decimal and type(right) is Decimal else fail()


def decimal_less_equal(left: Value, right: Value) -> bool:
    """`left.lessThanOrEqual(right)`."""
    return bool(left <= right) if type(left) is Decimal and type(right) is Decimal else fail()


# ------------------------------------------------------------------ time


def offset(instant: Value, length: Value) -> Datetime:
    """`instant.offset(length)`."""
    if type(instant) is not Datetime or type(length) is not Duration:
        fail()
    return Datetime(long(instant.ms + length.ms))


def duration_since(left: Value, right: Value) -> Duration:
    """`left.durationSince(right)`."""
    if type(left) is not Datetime or type(right) is not Datetime:
        fail()
    return Duration(long(left.ms - right.ms))


def to_date(value: Value) -> Datetime:
    """`value.toDate()`: midnight UTC of that day."""
    if type(value) is not Datetime:
        fail()
    return Datetime(long(value.ms // _DAY * _DAY))


def to_time(value: Value) -> Duration:
    """`value.toTime()`: the time since midnight UTC."""
    return Duration(value.ms % _DAY) if type(value) is Datetime else fail()


def whole(value: Value, unit: int) -> int:
    """Whole units (ms) of a duration, cut off towards zero."""
    if type(value) is not Duration:
        fail()
    return int(value.ms // unit if value.ms >= 0 else -(-value.ms // unit))


# ------------------------------------------------------------------ addresses


def in_range(inner: Value, outer: Value) -> bool:
    """`inner.isInRange(outer)`."""
    if type(inner) is not Ip or type(outer) is not Ip:
        fail()
    if inner.version != outer.version or inner.prefix < outer.prefix:
        return False
    shift = (32 if outer.version == 4 else 128) - outer.prefix
    return bool(inner.number >> shift == outer.number >> shift)


def is_version(value: Value, version: int) -> bool:
    """`value.isIpv4()` and `value.isIpv6()`."""
    return bool(value.version == version) if type(value) is Ip else fail()


def is_loopback(value: Value) -> bool:
    """`value.isLoopback()`."""
    return (is_version(value, 4) and in_range(value, _LOOPBACK4)) or in_range(value, _LOOPBACK6)


def is_multicast(value: Value) -> bool:
    """`value.isMulticast()`."""
    return (is_version(value, 4) and in_range(value, _MULTICAST4)) or in_range(value, _MULTICAST6)


_LOOPBACK4: Final = Ip(4, 0x7F000000, 8)
_LOOPBACK6: Final = Ip(6, 1, 128)
_MULTICAST4: Final = Ip(4, 0xE0000000, 4)
_MULTICAST6: Final = Ip(6, 0xFF << 120, 8)
