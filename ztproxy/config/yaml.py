"""YAML into a tree that knows the line and column of every key and value.

Called by `config.load`. Only plain data of the YAML 1.2 core schema: `off` is a word and not a boolean,
`1:30` is a text and not a number of seconds, a key given twice is an error. No tag ever makes an object;
size, depth and the number of nodes (aliases expanded) are bounded.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

import yaml as pyyaml

from ztproxy.config.problems import Problem

MAX_BYTES: Final = 1 << 20
MAX_DEPTH: Final = 24
MAX_NODES: Final = 200_000

Scalar = str | int | float | bool | None
Plain = Scalar | tuple["Plain", ...] | dict[str, "Plain"]
Loc = Sequence[str | int]


@dataclass(frozen=True, slots=True)
class Node:
    """A value and where it stands; `entries` of a mapping are Keys, `items` of a sequence are Nodes."""

    line: int
    column: int
    scalar: Scalar = None
    items: tuple["Node", ...] | None = None
    entries: dict[str, "Key"] | None = None

    def plain(self) -> Plain:
        """Return the bare data: dict, tuple or scalar."""
        if self.entries is not None:
            return {name: key.value.plain() for name, key in self.entries.items()}
        if self.items is not None:
            return tuple(item.plain() for item in self.items)
        return self.scalar

    def child(self, step: str | int) -> "Node | None":
        """Return the value below a key or index, None when there is none."""
        if isinstance(step, str):
            key = self.entries.get(step) if self.entries is not None else None
            return key.value if key is not None else None
        if self.items is not None and 0 <= step < len(self.items):
            return self.items[step]
        return None

    def without(self, loc: Loc) -> "Node":
        """Return a copy of the tree without the value at `loc`."""
        step, rest = loc[0], loc[1:]
        if self.entries is not None and isinstance(step, str):
            kept = dict(self.entries)
            if rest:
                kept[step] = Key(kept[step].line, kept[step].column, kept[step].value.without(rest))
            else:
                del kept[step]
            return Node(self.line, self.column, entries=kept)
        assert self.items is not None and isinstance(step, int)
        inner = (self.items[step].without(rest),) if rest else ()
        return Node(self.line, self.column, items=(*self.items[:step], *inner, *self.items[step + 1 :]))


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a mapping: where it stands and what it holds."""

    line: int
    column: int
    value: Node


class _Loader(getattr(pyyaml, "CBaseLoader", pyyaml.BaseLoader)):  # type: ignore[misc]
    """Composes nodes only; knows the words of the YAML 1.2 core schema and no tags."""


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]{1,18}|0o[0-7]{1,18}|0x[0-9a-fA-F]{1,15}", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]{1,17}|[0-9]{1,17}(\.[0-9]{0,17})?)([eE][-+]?[0-9]{1,3})?",
        list("-+.0123456789"),
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first)


@dataclass(slots=True)
class _Reading:
    """One pass over the composed nodes of a file; gathers problems that do not stop the reading."""

    file: str
    problems: list[Problem] = field(default_factory=list)
    nodes: int = 0

    def complain(self, mark: pyyaml.Mark, message: str, remedy: str) -> None:
        self.problems.append(Problem(self.file, mark.line + 1, mark.column + 1, "", message, remedy))

    def node(self, raw: pyyaml.Node, above: tuple[int, ...] = ()) -> Node:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise _TooMuch(raw.start_mark, f"more than {MAX_NODES} values, aliases expanded")
        if len(above) > MAX_DEPTH or id(raw) in above:
            raise _TooMuch(raw.start_mark, f"nested more than {MAX_DEPTH} levels deep")
        line, column = raw.start_mark.line + 1, raw.start_mark.column + 1
        inner = (*above, id(raw))
        if isinstance(raw, pyyaml.MappingNode):
            return Node(line, column, entries=dict(self._entries(raw, inner)))
        if isinstance(raw, pyyaml.SequenceNode):
            return Node(line, column, items=tuple(self.node(item, inner) for item in raw.value))
        return Node(line, column, scalar=self._scalar(raw))

    def _entries(self, raw: pyyaml.MappingNode, above: tuple[int, ...]) -> Iterator[tuple[str, Key]]:
        seen: dict[str, int] = {}
        for name, value in raw.value:
            mark = name.start_mark
            if not isinstance(name, pyyaml.ScalarNode) or name.value == "<<":
                self.complain(mark, "a key must be a plain word", "write the keys out; << is not supported")
                continue
            text = str(name.value)
            node = self.node(value, above)
            if text in seen:
                self.complain(
                    mark,
                    f"the key {text!r} is given twice, first on line {seen[text]}",
                    "keep one of the two",
                )
                continue
            seen[text] = mark.line + 1
            yield text, Key(mark.line + 1, mark.column + 1, node)

    def _scalar(self, raw: pyyaml.Node) -> Scalar:
        tag, text = str(raw.tag).removeprefix("tag:yaml.org,2002:"), str(raw.value)
        if tag == "str":
            return text
        if tag == "null":
            return None
        if tag == "bool":
            return text.lower() == "true"
        if tag == "int":
            return int(text, 10 if text.lstrip("+-").isdigit() else 0)
        if tag == "float":
            return float(text)
        self.complain(raw.start_mark, "tags are not supported", "remove the tag that begins with !")
        return text


class _TooMuch(Exception):
    """A bound was met; reading stops."""

    def __init__(self, mark: pyyaml.Mark, message: str) -> None:
        super().__init__(message)
        self.mark = mark


def parse(text: bytes, file: str) -> tuple[Node | None, list[Problem]]:
    """Read one YAML document. The tree is None when it can not be read as YAML at all."""
    reading = _Reading(file)
    if len(text) > MAX_BYTES:
        return None, [
            Problem(file, 1, 1, "", f"the file is larger than {MAX_BYTES} bytes", "split the policies off")
        ]
    try:
        decoded = text.decode("utf-8")
        _bound_depth(decoded)
        raw = pyyaml.compose(decoded, Loader=_Loader)
        if raw is None:
            return None, [Problem(file, 1, 1, "", "the file is empty", "start from `ztproxy init DIRECTORY`")]
        return reading.node(raw), reading.problems
    except _TooMuch as error:
        reading.complain(error.mark, str(error), "write it simpler")
    except UnicodeDecodeError as error:
        line = text[: error.start].count(b"\n") + 1
        return None, [Problem(file, line, 1, "", "the file is not UTF-8", "save it as UTF-8")]
    except (pyyaml.YAMLError, RecursionError) as error:
        reading.problems.append(_syntax(error, file))
    return None, reading.problems


def _bound_depth(text: str) -> None:
    """Refuse deep nesting before it is composed: libyaml's composer recurses on the C stack."""
    depth = 0
    for event in pyyaml.parse(text, Loader=_Loader):
        if isinstance(event, pyyaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise _TooMuch(
                    cast(pyyaml.Mark, event.start_mark), f"nested more than {MAX_DEPTH} levels deep"
                )
        elif isinstance(event, pyyaml.CollectionEndEvent):
            depth -= 1


def _syntax(error: Exception, file: str) -> Problem:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    # the words are libyaml's; the text that follows "alias" could be a secret that begins with *
    words = re.sub(r"(alias).*", r"\1", getattr(error, "problem", None) or "not readable as YAML")
    return Problem(
        file, line, column, "", f"not valid YAML: {words}", "check indentation, colons and quotes here"
    )
