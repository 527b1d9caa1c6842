"""What pydantic found, in words that help: expected what, found where, mend how.

Called by `load`. Values of a file are never quoted unless their field has a list of known words: anything
else could be a secret in the wrong place.
"""

import typing
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from ztproxy.config.places import Places, written
from ztproxy.config.problems import Problem
from ztproxy.config.yaml import Loc

_KINDS: Final[dict[str, tuple[str, str]]] = {
    "bool_type": ("expected true or false", "write true or false, without quotes"),
    "int_type": ("expected a whole number", "write digits, without quotes"),
    "int_from_float": ("expected a whole number", "write digits, without quotes"),
    "string_type": ("expected text", "put it in quotes"),
    "tuple_type": ("expected a list", "write [a, b], or one `- item` per line"),
    "model_type": ("expected a section of keys", "write its `key: value` lines below it, indented"),
    "greater_than_equal": ("the number is too small", "write {ge} or more"),
    "less_than_equal": ("the number is too large", "write {le} or less"),
    "too_short": ("the list is too short", "write at least {min_length}"),
    "too_long": ("the list is too long", "write at most {max_length}"),
    "string_too_short": ("the text is too short", "write at least {min_length} characters"),
    "string_too_long": ("the text is too long", "write at most {max_length} characters"),
}


def explain(error: ValidationError, model: type[BaseModel], places: Places) -> Iterator[Problem]:
    """Yield a problem for everything that pydantic complained about."""
    details = error.errors(include_url=False)
    for detail in details:
        if not _echo(detail, details):
            yield _problem(detail, model, places)


def _echo(detail: ErrorDetails, details: list[ErrorDetails]) -> bool:
    """Tell whether a list is too short only because its items are wrong, which is said already."""
    loc = detail["loc"]
    return detail["type"] == "too_short" and any(
        other["loc"][: len(loc)] == loc for other in details if other is not detail
    )


def _problem(detail: ErrorDetails, model: type[BaseModel], places: Places) -> Problem:
    kind, loc = detail["type"], detail["loc"]
    context = detail.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown_key(loc, model, places)
    if kind == "missing":
        return _missing(loc, model, places)
    if kind == "literal_error":
        return _unknown_word(detail, places)
    if kind == "ztproxy":
        return places.problem(context["message"], context["remedy"], *loc, *context["below"])
    message, remedy = _KINDS.get(kind, (_lower(detail["msg"]), "see docs/reference/configuration.md"))
    return places.problem(message, remedy.format_map(context), *loc)


def _unknown_key(loc: Loc, model: type[BaseModel], places: Places) -> Problem:
    known = sorted(fields_of(model, loc[:-1]))
    close = get_close_matches(str(loc[-1]), known, n=1)
    remedy = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"
    return places.problem(f"unknown key {str(loc[-1])[:60]!r}", remedy, *loc, key=True)


def _missing(loc: Loc, model: type[BaseModel], places: Places) -> Problem:
    field = fields_of(model, loc[:-1]).get(str(loc[-1]))
    meaning = (field.description or "") if field else ""
    above = written(loc[:-1]) or "the file"
    return places.problem(f"{above} lacks the key {loc[-1]!r}", f"add `{loc[-1]}: …` - {meaning}", *loc)


def _unknown_word(detail: ErrorDetails, places: Places) -> Problem:
    expected = str(detail["ctx"]["expected"])
    words = [word.strip("' ") for word in expected.replace(" or ", ",").split(",")]
    found = detail["input"]
    close = get_close_matches(found, words, n=1) if isinstance(found, str) else []
    shown = f"{found[:40]!r}" if isinstance(found, str) else "this"
    remedy = f"did you mean {close[0]!r}?" if close else f"write {expected}"
    return places.problem(f"{shown} is not a known word here", remedy, *detail["loc"])


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def fields_of(model: type[BaseModel], loc: Loc) -> Mapping[str, FieldInfo]:
    """Return the fields of the model at `loc` by the keys that the file uses."""
    for step in loc:
        if isinstance(step, str):
            field = _by_key(model).get(step)
            inner = _model_in(field.annotation) if field else None
            if inner is None:
                return {}
            model = inner
    return _by_key(model)


def _by_key(model: type[BaseModel]) -> dict[str, FieldInfo]:
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Find the model in `Model`, `Model | None` or `tuple[Model, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model_in(inner) for inner in typing.get_args(annotation))
    return next((model for model in found if model is not None), None)
