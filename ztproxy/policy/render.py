"""Cedar syntax trees and values as text, for explanations and listings. Never evaluated again.

Called by `explain` and `lint`. Long texts are the callers' concern; nothing here decides anything.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from cedarpy import pst

from ztproxy.policy.literals import written
from ztproxy.policy.values import CedarSet, Datetime, Decimal, Duration, Ip, Uid, Value

_INFIX: Final = {
    "or": ("||", 1), "and": ("&&", 2),
    "eq": ("==", 3), "not_eq": ("!=", 3), "less": ("<", 3), "less_eq": ("<=", 3),
    "greater": (">", 3), "greater_eq": (">=", 3), "in": ("in", 3),
    "add": ("+", 4), "sub": ("-", 4), "mul": ("*", 5),
}  # fmt: skip
_METHODS: Final = {
    "contains": "contains", "contains_all": "containsAll", "contains_any": "containsAny",
    "get_tag": "getTag", "has_tag": "hasTag", "is_in_range": "isInRange",
    "offset": "offset", "duration_since": "durationSince",
    "decimal_less_than": "lessThan", "decimal_less_eq": "lessThanOrEqual",
    "decimal_greater": "greaterThan", "decimal_greater_eq": "greaterThanOrEqual",
    "is_empty": "isEmpty", "is_ipv4": "isIpv4", "is_ipv6": "isIpv6",
    "is_loopback": "isLoopback", "is_multicast": "isMulticast", "to_date": "toDate", "to_time": "toTime",
    "to_milliseconds": "toMilliseconds", "to_seconds": "toSeconds", "to_minutes": "toMinutes",
    "to_hours": "toHours", "to_days": "toDays",
}  # fmt: skip

_RESERVED: Final = frozenset({"true", "false", "if", "then", "else", "in", "is", "like", "has", "__cedar"})

#: Binding strength of relations (==, <, has, like, is), of unary operators and of everything closed.
_RELATION, _UNARY, _CLOSED = 3, 6, 9


def quote(text: str) -> str:
    """Return a Cedar string literal that means exactly `text`."""
    return '"' + "".join(_ESCAPES.get(c) or _escaped(c) for c in text) + '"'


_ESCAPES: Final = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t", "\0": "\\0"}


def _escaped(c: str) -> str:
    return c if c.isprintable() else f"\\u{{{ord(c):x}}}"


def uid_text(type_name: str, entity_id: str) -> str:
    """Return an entity uid as policies write it."""
    return f"{type_name}::{quote(entity_id)}"


def expression(node: pst.Expr) -> str:
    """Return an expression as Cedar text."""
    return _text(node)[0]


def _within(node: pst.Expr, strength: int) -> str:
    """Return the text of an operand, in parentheses if it binds less than `strength`."""
    text, own = _text(node)
    return text if own >= strength else f"({text})"


def _text(node: pst.Expr) -> tuple[str, int]:
    match node:
        case pst.Var(name):
            return name, _CLOSED
        case pst.BoolLit(value):
            return str(value).lower(), _CLOSED
        case pst.LongLit(value):
            return str(value), _CLOSED if value >= 0 else _UNARY
        case pst.StringLit(value):
            return quote(value), _CLOSED
        case pst.EntityLit(uid):
            return uid_text(str(uid.type), uid.id), _CLOSED
        case pst.Set(elements):
            return f"[{', '.join(map(expression, elements))}]", _CLOSED
        case pst.Record(entries):
            inner = ", ".join(f"{quote(name)}: {expression(value)}" for name, value in entries.items())
            return f"{{{inner}}}", _CLOSED
        case pst.IfThenElse(cond, yes, no):
            return f"if {expression(cond)} then {expression(yes)} else {expression(no)}", 0
        case pst.UnaryOp() | pst.BinaryOp():
            return _operator(node)
    return _member(node)


def _member(node: pst.Expr) -> tuple[str, int]:
    match node:
        case pst.GetAttr(base, name):
            step = f".{name}" if _plain(name) else f"[{quote(name)}]"
            return _within(base, _CLOSED) + step, _CLOSED
        case pst.HasAttr(base, names):
            steps = ".".join(names) if all(map(_plain, names)) else quote(names[0])
            return f"{_within(base, 4)} has {steps}", _RELATION
        case pst.Like(base, pattern):
            return f"{_within(base, 4)} like {_pattern(pattern)}", _RELATION
        case pst.Is(base, kind, above):
            tail = f" in {_within(above, 4)}" if above is not None else ""
            return f"{_within(base, 4)} is {kind}{tail}", _RELATION
    return str(node), _CLOSED


def _plain(name: str) -> bool:
    """Whether an attribute's name can be written without quotes."""
    return name.isascii() and name.isidentifier() and name not in _RESERVED


def _pattern(pattern: tuple[pst.PatternElem, ...]) -> str:
    chars = ("*" if isinstance(e, pst.Wildcard) else _in_pattern(e.value) for e in pattern)
    return '"' + "".join(chars) + '"'


def _in_pattern(c: str) -> str:
    return "\\*" if c == "*" else quote(c)[1:-1]


def _operator(node: pst.UnaryOp | pst.BinaryOp) -> tuple[str, int]:
    if isinstance(node, pst.BinaryOp):
        if node.op in _METHODS:
            return f"{_within(node.left, _CLOSED)}.{_METHODS[node.op]}({expression(node.right)})", _CLOSED
        sign, strength = _INFIX[node.op]
        left = _within(node.left, strength + (strength == _RELATION))
        return f"{left} {sign} {_within(node.right, strength + 1)}", strength
    if node.op == "not":
        again = isinstance(node.arg, pst.UnaryOp) and node.arg.op == "not"
        return f"!{_within(node.arg, _UNARY if again else _CLOSED)}", _UNARY
    if node.op == "neg":
        literal = isinstance(node.arg, pst.LongLit)  # -5 is a literal, -(5) a negation
        return f"-{f'({expression(node.arg)})' if literal else _within(node.arg, _CLOSED)}", _UNARY
    if node.op in _METHODS:
        return f"{_within(node.arg, _CLOSED)}.{_METHODS[node.op]}()", _CLOSED
    return f"{node.op}({expression(node.arg)})", _CLOSED


def shown(value: Value) -> str:
    """Return a value for people: dates as dates, texts in quotes."""
    kind = type(value)
    if kind is str:
        return quote(value)
    if kind is bool:
        return str(value).lower()
    if kind is Uid:
        return uid_text(value.type, value.id)
    if kind is CedarSet:
        return f"[{', '.join(map(shown, value.values))}]"
    if kind is dict:
        return f"{{{', '.join(f'{name}: {shown(inner)}' for name, inner in value.items())}}}"
    return written(value) if kind in (Datetime, Duration, Decimal, Ip) else str(value)


def children(node: object) -> Iterator[object]:
    """Yield the nodes directly below a node of a syntax tree."""
    for name in getattr(type(node), "__match_args__", ()):
        inner = getattr(node, name)
        if isinstance(inner, Mapping):
            yield from inner.values()
        elif isinstance(inner, tuple):
            yield from inner
        elif not isinstance(inner, str | int | None):
            yield inner


def path(node: object) -> tuple[str, ...]:
    """Return ("principal", "device", "proof") for principal.device.proof, () for anything else."""
    steps: list[str] = []
    while isinstance(node, pst.GetAttr):
        steps.append(node.attr)
        node = node.base
    return (node.name, *reversed(steps)) if isinstance(node, pst.Var) else ()


def reads(node: object) -> Iterator[tuple[str, ...]]:
    """Yield the attribute paths an expression reads or asks for with `has`, the longest of each."""
    found = path(node)
    if len(found) > 1:
        yield found
        return
    if isinstance(node, pst.HasAttr) and path(node.base):
        yield (*path(node.base), *node.attrs)
        return
    for child in children(node):
        yield from reads(child)
