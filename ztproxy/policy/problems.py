"""What is wrong with a policy set, told so that it can be mended: place, message, remedy.

Made by `sources`, `lint`, `load` and `cases`; printed by `ztproxy check` and by the service.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing to mend. Lines count from 1; 0 = the file as a whole."""

    file: str
    line: int
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.message}" + (f" ({self.remedy})" if self.remedy else "")


class PolicyProblems(Exception):
    """A policy set that can not be used, with all that is wrong with it in order of file and line."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(sorted(set(problems)))
        super().__init__("\n".join(map(str, self.problems)))
