"""Cedar's operators by the names the syntax tree (`cedarpy.pst`) gives them: tables, nothing else.

Read by `compile`. `and`, `or`, `not` are not here: they decide which of their operands are evaluated.
"""

from collections.abc import Callable
from typing import Final

from ztproxy.policy import literals
from ztproxy.policy import operations as ops
from ztproxy.policy.operations import Env
from ztproxy.policy.values import Value, equal

#: One operand.
UNARY: Final[dict[str, Callable[[Value], Value]]] = {
    "neg": ops.negate,
    "is_empty": ops.is_empty,
    "ip": literals.ip,
    "decimal": literals.decimal,
    "datetime": literals.datetime,
    "duration": literals.duration,
    "is_ipv4": lambda v: ops.is_version(v, 4),
    "is_ipv6": lambda v: ops.is_version(v, 6),
    "is_loopback": ops.is_loopback,
    "is_multicast": ops.is_multicast,
    "to_date": ops.to_date,
    "to_time": ops.to_time,
    "to_milliseconds": lambda v: ops.whole(v, 1),
    "to_seconds": lambda v: ops.whole(v, 1000),
    "to_minutes": lambda v: ops.whole(v, 60_000),
    "to_hours": lambda v: ops.whole(v, 3_600_000),
    "to_days": lambda v: ops.whole(v, 86_400_000),
}

#: Two operands.
BINARY: Final[dict[str, Callable[[Value, Value], Value]]] = {
    "eq": equal,
    "not_eq": ops.differ,
    "less": ops.less,
    "less_eq": ops.less_equal,
    "greater": lambda left, right: ops.less(right, left),
    "greater_eq": lambda left, right: ops.less_equal(right, left),
    "add": ops.add,
    "sub": ops.subtract,
    "mul": ops.multiply,
    "contains": ops.contains,
    "contains_all": ops.contains_all,
    "contains_any": ops.contains_any,
    "is_in_range": ops.in_range,
    "offset": ops.offset,
    "duration_since": ops.duration_since,
    "decimal_less_than": ops.decimal_less,
    "decimal_less_eq": ops.decimal_less_equal,
    "decimal_greater": lambda left, right: ops.decimal_less(right, left),
    "decimal_greater_eq": lambda left, right: ops.decimal_less_equal(right, left),
}

#: Two operands and what is known of entities.
READING: Final[dict[str, Callable[[Value, Value, Env], Value]]] = {
    "in": ops.inside,
    "has_tag": ops.has_tag,
    "get_tag": ops.get_tag,
}
