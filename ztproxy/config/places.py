"""Where a value stands in its file: turns paths of keys into lines and columns.

Used by `explain` and the checks, which speak of values and leave their places to this module.
"""

from dataclasses import dataclass

from ztproxy.config.problems import Problem
from ztproxy.config.yaml import Loc, Node


@dataclass(frozen=True, slots=True)
class Places:
    """The tree of one file."""

    file: str
    tree: Node

    def problem(self, message: str, remedy: str, *loc: str | int, key: bool = False) -> Problem:
        """Make a problem of the value at `loc`, or of its key. The absent stand where they belong."""
        line, column = self._position(loc, key)
        return Problem(self.file, line, column, written(loc), message, remedy)

    def line(self, *loc: str | int) -> int:
        """Return the line of a value."""
        return self._position(loc, False)[0]

    def _position(self, loc: Loc, key: bool) -> tuple[int, int]:
        node = self.tree
        for depth, step in enumerate(loc):
            if (
                key
                and depth == len(loc) - 1
                and node.entries
                and isinstance(step, str)
                and step in node.entries
            ):
                return node.entries[step].line, node.entries[step].column
            below = node.child(step)
            if below is None:
                break
            node = below
        return node.line, node.column


def written(loc: Loc) -> str:
    """Write a path of keys: ("routes", 2, "to") is "routes[2].to"."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in loc)
    return text.removeprefix(".")
