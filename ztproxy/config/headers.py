"""Names and values of header fields that a route changes.

Used by `upstream_sections` as pydantic types. Names that say where a message ends, who is asked for or who
asks are not for configurations: two hands on them would make requests that can be read in two ways.
"""

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Annotated, Final

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema

from ztproxy.config.secrets import wrong
from ztproxy.model.changes import VARIABLES, Stamp
from ztproxy.wire.fields import OURS_IN_REQUESTS, OURS_IN_RESPONSES, plain

MOST: Final = 32  # fields of one list

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}").fullmatch
_VALUE: Final = re.compile(r"[!-~](?:[ -~]{0,998}[!-~])?").fullmatch
_VARIABLE: Final = re.compile(r"\$\{([^}]*)\}")

#: Fields of which a text in the configuration would be a secret.
_CREDENTIALS: Final = frozenset({b"authorization", b"proxy-authorization"})

#: What to write instead.
_INSTEAD: Final = {b"host": "write `host_header`", b"cookie": "cookies pass, but for ztproxy's own"}


def _name(raw: object, ours: frozenset[bytes], *below: str) -> str:
    if not isinstance(raw, str) or not _NAME(raw):
        raise wrong("not the name of a field", "use letters, digits and '-', beginning with a letter", *below)
    name = plain(raw.encode("ascii"))
    if name in ours or name.startswith(b"zt-"):
        raise wrong(f"{raw} is written by ztproxy alone", _INSTEAD.get(name, "choose another field"), *below)
    return raw


def request_name(raw: object) -> str:
    """Read the name of a request field."""
    return _name(raw, OURS_IN_REQUESTS)


def response_name(raw: object) -> str:
    """Read the name of a response field."""
    return _name(raw, OURS_IN_RESPONSES)


def cors_name(raw: object) -> str:
    """Read the name of a field that pages may set or read, or "*"."""
    return "*" if raw == "*" else _name(raw, frozenset())


def _pairs(raw: object, ours: frozenset[bytes]) -> Iterator[tuple[str, str]]:
    """Yield names and values that can be sent; names only once."""
    if not isinstance(raw, Mapping):
        raise wrong("expected names and values", "write `NAME: VALUE` lines below it, indented")
    if len(raw) > MOST:
        raise wrong("too many fields", f"write at most {MOST}")
    seen: set[bytes] = set()
    for key, value in raw.items():
        name = _name(key, ours, str(key))
        if plain(name.encode("ascii")) in seen:
            raise wrong("this field is set already", "names differ in more than case", name)
        seen.add(plain(name.encode("ascii")))
        if not isinstance(value, str) or not _VALUE(value):
            remedy = "write 1 to 1000 printable ASCII characters, in quotes, without spaces around them"
            raise wrong("not the value of a field", remedy, name)
        yield name, value


def stamps(raw: object) -> tuple[Stamp, ...]:
    """Read request fields with their values."""
    return tuple(_stamp(name, value) for name, value in _pairs(raw, OURS_IN_REQUESTS))


def _stamp(name: str, value: str) -> Stamp:
    if plain(name.encode("ascii")) in _CREDENTIALS:
        raise wrong("credentials are never written into the configuration", "let the upstream trust us", name)
    parts = tuple(_VARIABLE.split(value))
    for variable in parts[1::2]:
        if variable not in VARIABLES:
            close = get_close_matches(variable, VARIABLES, n=1)
            remedy = f"did you mean ${{{close[0]}}}?" if close else f"known are {', '.join(VARIABLES)}"
            raise wrong(f"nothing is called ${{{variable[:40]}}} here", remedy, name)
    if any("${" in text for text in parts[::2]):
        raise wrong("a variable does not end", "write it as ${principal.id}", name)
    return Stamp(name, parts)


def constants(raw: object) -> tuple[tuple[str, str], ...]:
    """Read response fields with their values."""
    found = tuple(_pairs(raw, OURS_IN_RESPONSES | {b"set-cookie"}))
    for name, value in found:
        if "${" in value:
            raise wrong("values of responses are constant", "only requests say who asks", name)
    return found


def _stamps_written(value: tuple[Stamp, ...]) -> dict[str, str]:
    return {stamp.name: _text(stamp.parts) for stamp in value}


def _text(parts: tuple[str, ...]) -> str:
    return "".join(f"${{{part}}}" if number % 2 else part for number, part in enumerate(parts))


_NAME_SCHEMA: Final = WithJsonSchema(
    {"type": "string", "pattern": "^[A-Za-z][A-Za-z0-9-]{0,63}$", "examples": ["X-Powered-By"]}
)
_PAIRS_SCHEMA: Final = WithJsonSchema(
    {
        "type": "object",
        "propertyNames": {"pattern": "^[A-Za-z][A-Za-z0-9-]{0,63}$"},
        "additionalProperties": {"type": "string", "minLength": 1, "maxLength": 1000},
        "format": "names and values",
    }
)
CorsName = Annotated[
    str,
    PlainValidator(cors_name),
    WithJsonSchema(
        {"type": "string", "pattern": "^([A-Za-z][A-Za-z0-9-]{0,63}|\\*)$", "examples": ["X-Total"]}
    ),
]
RequestName = Annotated[str, PlainValidator(request_name), _NAME_SCHEMA]
ResponseName = Annotated[str, PlainValidator(response_name), _NAME_SCHEMA]
Stamps = Annotated[tuple[Stamp, ...], PlainValidator(stamps), PlainSerializer(_stamps_written), _PAIRS_SCHEMA]
Constants = Annotated[
    tuple[tuple[str, str], ...], PlainValidator(constants), PlainSerializer(dict), _PAIRS_SCHEMA
]
