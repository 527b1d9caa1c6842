"""The upstreams of a route: one address, or a list of targets with weights.

Used by `sections` as a pydantic type. It is read as a whole, because a text and a list are both right; what
is wrong is told with its place inside.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Final

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from ztproxy.config.secrets import wrong
from ztproxy.config.values import upstream
from ztproxy.model.resource import Target, Upstream

MOST: Final = 64  # targets of a route
HEAVIEST: Final = 100


def targets(raw: object) -> tuple[Target, ...]:
    """Read a route's `to`."""
    if not isinstance(raw, list | tuple):
        return (Target(upstream(raw)),)
    if not 1 <= len(raw) <= MOST:
        raise wrong("not a usable number of targets", f"write 1 to {MOST} targets")
    return tuple(_distinct(raw))


def _distinct(raw: Sequence[object]) -> Iterator[Target]:
    seen: set[Upstream] = set()
    for index, item in enumerate(raw):
        target = _target(item, index)
        if target.upstream in seen:
            raise wrong("this target is listed already", "give one of them a larger weight instead", index)
        seen.add(target.upstream)
        yield target


def _target(raw: object, index: int) -> Target:
    if not isinstance(raw, Mapping):
        return Target(_address(raw, index))
    unknown = sorted(map(str, raw.keys() - {"url", "weight"}))
    if unknown:
        raise wrong(f"unknown key {unknown[0][:60]!r}", "known here: url, weight", index, unknown[0])
    weight = raw.get("weight", 1)
    if type(weight) is not int or not 1 <= weight <= HEAVIEST:
        raise wrong("not a weight", f"write a whole number from 1 to {HEAVIEST}", index, "weight")
    return Target(_address(raw.get("url"), index, "url"), weight)


def _address(raw: object, *below: str | int) -> Upstream:
    """Read an address; say where in the list it is when it is none."""
    try:
        return upstream(raw)
    except PydanticCustomError as error:
        said = error.context or {}
        raise wrong(said["message"], said["remedy"], *below) from None


def _written(value: tuple[Target, ...]) -> object:
    if len(value) == 1:
        return value[0].upstream.url
    return [{"url": target.upstream.url, "weight": target.weight} for target in value]


_ADDRESS: Final = {
    "type": "string",
    "pattern": r"^(https?://[^/?#@]+/?|unix:/.+)$",
    "examples": ["http://127.0.0.1:9001"],
}
_TARGET: Final = {
    "type": "object",
    "properties": {"url": _ADDRESS, "weight": {"type": "integer", "minimum": 1, "maximum": HEAVIEST}},
    "required": ["url"],
    "additionalProperties": False,
}

To = Annotated[
    tuple[Target, ...],
    PlainValidator(targets),
    PlainSerializer(_written),
    WithJsonSchema(
        {
            "anyOf": [
                _ADDRESS,
                {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": MOST,
                    "items": {"anyOf": [_ADDRESS, _TARGET]},
                },
            ]
        }
    ),
]
