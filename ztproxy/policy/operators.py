"""Cedar's operators by the names the syntax tree (`cedarpy.pst`) gives them: tables, nothing else.

Read by `compile`. `and`, `or`, `not` are not here: they decide which of their operands are evaluated.
"""

from collections.abc import Callable
from typing import Final

from ztproxy.policy import literals
from ztproxy.policy import operations as ops
from ztproxy.policy.operations import Env
from ztproxy.policy.values import Value, equal

#: One operand: what it does, and whether only a bool can come of it.
UNARY: Final[dict[str, tuple[Callable[[Value], Value], bool]]] = {
    "neg": (ops.negate, False),
    "is_empty": (ops.is_empty, True),
    "ip": (literals.ip, False),
    "decimal": (literals.decimal, False),
    "datetime": (literals.datetime, False),
    "duration": (literals.duration, False),
    "is_ipv4": (lambda v: ops.is_version(v, 4), True),
    "is_ipv6": (lambda v: ops.is_version(v, 6), True),
    "is_loopback": (ops.is_loopback, True),
    "is_multicast": (ops.is_multicast, True),
    "to_date": (ops.to_date, False),
    "to_time": (ops.to_time, False),
    "to_milliseconds": (lambda v: ops.whole(v, 1), False),
    "to_seconds": (lambda v: ops.whole(v, 1000), False),
    "to_minutes": (lambda v: ops.whole(v, 60_000), False),
    "to_hours": (lambda v: ops.whole(v, 3_600_000), False),
    "to_days": (lambda v: ops.whole(v, 86_400_000), False),
}

#: Two operands.
BINARY: Final[dict[str, tuple[Callable[[Value, Value], Value], bool]]] = {
    "eq": (equal, True),
    "not_eq": (ops.differ, True),
    "less": (ops.less, True),
    "less_eq": (ops.less_equal, True),
    "greater": (lambda left, right: ops.less(right, left), True),
    "greater_eq": (lambda left, right: ops.less_equal(right, left), True),
    "add": (ops.add, False),
    "sub": (ops.subtract, False),
    "mul": (ops.multiply, False),
    "contains": (ops.contains, True),
    "contains_all": (ops.contains_all, True),
    "contains_any": (ops.contains_any, True),
    "is_in_range": (ops.in_range, True),
    "offset": (ops.offset, False),
    "duration_since": (ops.duration_since, False),
    "decimal_less_than": (ops.decimal_less, True),
    "decimal_less_eq": (ops.decimal_less_equal, True),
    "decimal_greater": (lambda left, right: ops.decimal_less(right, left), True),
    "decimal_greater_eq": (lambda left, right: ops.decimal_less_equal(right, left), True),
}

#: Two operands and what is known of entities.
READING: Final[dict[str, tuple[Callable[[Value, Value, Env], Value], bool]]] = {
    "in": (ops.inside, True),
    "has_tag": (ops.has_tag, True),
    "get_tag": (ops.get_tag, False),
}
