"""The values Cedar computes with: bool, int (64 bit), str, dict (record) and the types defined here.

Used by every module of this room. Semantics are Cedar's, checked against its own engine in the tests.
Two things are ours: `EvalError` for whatever Cedar calls an error, and UNKNOWN, which no operation accepts.
"""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, NoReturn, TypeAlias, final

from ztproxy.model.native import mypyc_attr
from ztproxy.model.subject import UNKNOWN

#: bool | int | str | Uid | CedarSet | Datetime | Duration | Ip | Decimal | dict[str, Value]. Every operation
#: checks the types it meets, so a wider static type would only repeat at length what is checked anyway.
Value: TypeAlias = Any

#: A Cedar record.
Record: TypeAlias = dict[str, Value]

LONG_MIN: Final = -(1 << 63)
LONG_MAX: Final = (1 << 63) - 1


class EvalError(Exception):
    """A policy can not be evaluated: a type error, an overflow, a missing attribute, an unknown fact."""


def fail(message: str = "type error") -> NoReturn:
    """Raise EvalError; an expression, so that it fits into conditional expressions."""
    raise EvalError(message)


class Uid(NamedTuple):
    """The name of an entity."""

    type: str
    id: str

    def __repr__(self) -> str:
        return f'{self.type}::"{self.id}"'


class Ip(NamedTuple):
    """An address or a network."""

    version: int  # 4 or 6
    number: int
    prefix: int  # length in bits


class Decimal(NamedTuple):
    """A fixed-point number."""

    units: int  # of 1/10000


@final
@mypyc_attr(acyclic=True)
class Datetime:
    """An instant. It and `Duration` are in slots of C: ages are asked for all the time."""

    __slots__ = ("ms",)

    def __init__(self, ms: int) -> None:
        self.ms: Final = ms  # since the epoch

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Datetime) and self.ms == other.ms

    def __lt__(self, other: "Datetime") -> bool:
        return self.ms < other.ms

    def __le__(self, other: "Datetime") -> bool:
        return self.ms <= other.ms

    def __hash__(self) -> int:
        return hash(self.ms)

    def __repr__(self) -> str:
        return f"Datetime(ms={self.ms})"


@final
@mypyc_attr(acyclic=True)
class Duration:
    """A length of time."""

    __slots__ = ("ms",)

    def __init__(self, ms: int) -> None:
        self.ms: Final = ms

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Duration) and self.ms == other.ms

    def __lt__(self, other: "Duration") -> bool:
        return self.ms < other.ms

    def __le__(self, other: "Duration") -> bool:
        return self.ms <= other.ms

    def __hash__(self) -> int:
        return hash(self.ms)

    def __repr__(self) -> str:
        return f"Duration(ms={self.ms})"


class CedarSet:
    """A set. Elements are told apart by type first: 1, true and "1" are three of them."""

    __slots__ = ("keys", "values")

    def __init__(self, values: Iterable[Value]) -> None:
        found = {key(value): value for value in values}
        self.keys = frozenset(found)
        self.values = tuple(found.values())

    def __eq__(self, other: object) -> bool:
        return type(other) is CedarSet and self.keys == other.keys

    def __hash__(self) -> int:
        return hash(self.keys)

    def __repr__(self) -> str:
        return f"CedarSet({list(self.values)})"


@dataclass(frozen=True, slots=True)
class Entity:
    """An entity: its attributes, everything above it, and its tags."""

    uid: Uid
    attributes: Record
    ancestors: frozenset[Uid] = frozenset()
    tags: Record = field(default_factory=dict)
    lineage: frozenset[Uid] = field(init=False)  # itself and its ancestors
    paths: dict[str, Value] = field(init=False, repr=False, compare=False)  # attributes within records, too

    def __post_init__(self) -> None:
        object.__setattr__(self, "lineage", self.ancestors | {self.uid})
        object.__setattr__(self, "paths", dict(_paths(self.attributes, "")))


#: Between the names of a path; no name of a path holds it.
STEP: Final = "\0"


def _paths(record: Record, before: str) -> Iterator[tuple[str, Value]]:
    for name, value in record.items():
        if STEP not in name:
            path = sys.intern(before + name)
            yield path, value
            if type(value) is dict:
                yield from _paths(value, path + STEP)


def path_of(names: tuple[str, ...]) -> str:
    """Return the text of a path: the very same for all callers, of whom there are many, and for policies."""
    return sys.intern(STEP.join(names))


def key(value: Value) -> Any:
    """Return something hashable that is equal for equal values only. Raises EvalError on UNKNOWN."""
    kind = type(value)
    if kind is str or kind is int or kind is CedarSet:
        return value
    if kind is dict:
        return "record", frozenset((name, key(inner)) for name, inner in value.items())
    if value is UNKNOWN:
        fail("unknown fact")
    return kind.__name__, value


def equal(left: Value, right: Value) -> bool:
    """Cedar's `==`: values of different types are different. Raises EvalError on UNKNOWN."""
    if left is UNKNOWN or right is UNKNOWN:
        fail("unknown fact")
    if type(left) is not type(right):
        return False
    if type(left) is dict:
        # by key, which meets every part: what is unknown may also be absent, so even different
        # attributes do not settle it
        return bool(key(left) == key(right))
    return bool(left == right)
