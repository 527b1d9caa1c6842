"""Policy texts cut into statements, each with the place it stands in, and parsed by Cedar's own parser.

Called by `load`. Knows nothing of our schema. Every statement is parsed on its own, so one mistake does not
hide the next and every problem has a line.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

import cedarpy
from cedarpy import pst

from ztproxy.policy.problems import Problem

#: Bounds of one set.
MAX_STATEMENTS: Final = 10_000
MAX_STATEMENT: Final = 64 * 1024  # characters

#: Strings and comments, in which a semicolon ends nothing; then the semicolon that ends a statement.
#: As Cedar's lexer has them: a lone carriage return ends a comment too.
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|//[^\n\r]*|;', re.DOTALL)
_FILLER = re.compile(r"(?:\s+|//[^\n\r]*)*")


class Statement(NamedTuple):
    """One policy as it was written."""

    file: str
    line: int  # of its first word
    text: str
    tree: pst.Template


def statements(file: str, text: str) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of each statement; the last may lack its semicolon, which Cedar will say."""
    start = 0
    for token in _TOKEN.finditer(text):
        if token[0] == ";":
            yield _placed(text, start, token.end())
            start = token.end()
    if _skip(text, start) < len(text):
        yield _placed(text, start, len(text))


def _skip(text: str, start: int) -> int:
    filler = _FILLER.match(text, start)
    return filler.end() if filler else start


def _placed(text: str, start: int, end: int) -> tuple[int, str]:
    begin = _skip(text, start)
    return text.count("\n", 0, begin) + 1, text[begin:end]


def parse(
    sources: Iterable[tuple[str, str]], known: Mapping[str, pst.Template] | None = None
) -> tuple[list[Statement], list[Problem]]:
    """Parse (file, text) pairs. Returns what could be read, and what could not and why.

    `known`: trees of statements by their text; Cedar is asked about others only.
    """
    trees = known or {}
    read: list[Statement] = []
    problems: list[Problem] = []
    for file, text in sources:
        before = len(read), len(problems)
        for line, one in statements(file, text):
            if len(read) >= MAX_STATEMENTS:
                problems.append(Problem(file, line, f"more than {MAX_STATEMENTS} policies"))
                return read, problems
            tree = trees.get(one)
            parsed = _parsed(file, line, one) if tree is None else Statement(file, line, one, tree)
            if isinstance(parsed, Problem):
                problems.append(parsed)
            else:
                read.append(parsed)
        if len(problems) == before[1] and _count(text) != len(read) - before[0]:
            problems.append(Problem(file, 0, "Cedar reads another number of policies in this file"))
    return read, problems


def _count(text: str) -> int:
    """How many policies Cedar finds in the whole text: nothing may get lost between two of ours."""
    try:
        return len(cedarpy.PolicySet.from_str(text))
    except ValueError:
        return -1


def _parsed(file: str, line: int, text: str) -> Statement | Problem:
    if len(text) > MAX_STATEMENT:
        return Problem(file, line, "the policy is too long", f"keep it below {MAX_STATEMENT} characters")
    try:
        tree = cedarpy.policies_to_pst(text)
    except ValueError as error:
        return Problem(file, line, f"not valid Cedar: {error}", "see https://docs.cedarpolicy.com/")
    if tree.templates or tree.template_links:
        return Problem(
            file, line, "policy templates are not supported", "write the principal and resource out"
        )
    if len(tree.static_policies) != 1:
        return Problem(file, line, "this is not one policy", "end each policy with a semicolon")
    return Statement(file, line, text, next(iter(tree.static_policies.values())))
