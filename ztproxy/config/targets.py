"""The upstreams of a route: one address, or a list of targets with weights.

Used by `sections` as a pydantic type. It is read as a whole, because a text and a list are both right; what
is wrong is told with its place inside.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Final, TypeVar

from msgspec.structs import replace
from pydantic import PlainSerializer, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from ztproxy.config.secrets import wrong
from ztproxy.config.values import NAME_PATTERN, name, upstream
from ztproxy.model.resource import Target, Upstream

_T = TypeVar("_T")

MOST: Final = 64  # targets of a route
HEAVIEST: Final = 100


def targets(raw: object) -> tuple[Target, ...]:
    """Read a route's `to`."""
    if isinstance(raw, Mapping):
        raise wrong("expected an address, or a list of targets", "write an item of a list: `- {url: …}`")
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
        return Target(_read(upstream, raw, index))
    unknown = sorted(map(str, raw.keys() - {"url", "weight", "connector"}))
    if unknown:
        known = "known here: url, weight, connector"
        raise wrong(f"unknown key {unknown[0][:60]!r}", known, index, unknown[0])
    if "url" not in raw:
        raise wrong("a target lacks the key 'url'", "add `url: http://HOST:PORT`", index)
    weight = raw.get("weight", 1)
    if type(weight) is not int or not 1 <= weight <= HEAVIEST:
        raise wrong("not a weight", f"write a whole number from 1 to {HEAVIEST}", index, "weight")
    address = _read(upstream, raw["url"], index, "url")
    if "connector" in raw:
        address = replace(address, connector=_read(name, raw["connector"], index, "connector"))
    return Target(address, weight)


def _read(reader: Callable[[object], _T], raw: object, *below: str | int) -> _T:
    """Read a value; say where in the list it is when it is none."""
    try:
        return reader(raw)
    except PydanticCustomError as error:
        said = error.context or {}
        raise wrong(said["message"], said["remedy"], *below) from None


def _written(value: tuple[Target, ...]) -> object:
    if len(value) == 1 and not value[0].upstream.connector:
        return value[0].upstream.url
    return [_one_written(target) for target in value]


def _one_written(target: Target) -> dict[str, object]:
    connector = target.upstream.connector
    written: dict[str, object] = {"url": target.upstream.url, "weight": target.weight}
    return {**written, "connector": connector} if connector else written


_ADDRESS: Final = {
    "type": "string",
    "pattern": r"^(https?://[^/?#@]+/?|unix:/.+)$",
    "examples": ["http://127.0.0.1:9001"],
}
_TARGET: Final = {
    "type": "object",
    "properties": {
        "url": _ADDRESS,
        "weight": {"type": "integer", "minimum": 1, "maximum": HEAVIEST},
        "connector": {"type": "string", "pattern": NAME_PATTERN},
    },
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
