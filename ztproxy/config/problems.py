"""What is wrong with a configuration, told so that it can be mended: place, message, remedy.

Made by every module of this room, printed by `ztproxy check` and by the service. A problem must never carry
the value of a secret.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing to mend. Lines and columns count from 1; `where` is the path of keys: "routes[2].to"."""

    file: str
    line: int
    column: int
    where: str
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        where = f"{self.where}: " if self.where else ""
        remedy = f" ({self.remedy})" if self.remedy else ""
        return f"{self.file}:{self.line}:{self.column}: {where}{self.message}{remedy}"


class ConfigProblems(Exception):
    """A configuration that can not be used, with all that is wrong with it in order of file and line."""

    def __init__(self, problems: Iterable[Problem], read: Sequence[str] = ()) -> None:
        self.problems: tuple[Problem, ...] = tuple(sorted(set(problems)))
        self.read = tuple(read)  # paths and patterns: where a mended file may appear
        super().__init__("\n".join(map(str, self.problems)))
