"""The policy set that the settings name: files, tests and what routes say in shorthand.

Called by `load`. Loading means reading, validating, linting, compiling and running the set's own tests; what
`policy` complains about is told with the places of the configuration, so a shorthand's mistakes are found at
its `allow`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, Literal, NamedTuple

from ztproxy.config import yaml
from ztproxy.config.places import Places
from ztproxy.config.problems import ConfigProblems, Problem
from ztproxy.config.settings import Settings
from ztproxy.policy import load as policy
from ztproxy.policy import shorthand
from ztproxy.policy.engine import PolicySet
from ztproxy.policy.problems import PolicyProblems

MAX_FILES: Final = 1000
MAX_BYTES: Final = 4 << 20


class Sources(NamedTuple):
    """Policies as (file, text), tests as (file, document), and what could not be read."""

    policies: tuple[tuple[str, str], ...]
    tests: tuple[tuple[str, Mapping[str, object]], ...]
    problems: tuple[Problem, ...]


def find_policies(settings: Settings, places: Places) -> tuple[PolicySet | None, list[Problem]]:
    """Load the policy set, or say all that is wrong with it."""
    sources = read_sources(settings, places)
    problems = list(sources.problems)
    try:
        compiled = policy.load(
            sources.policies,
            settings.routes(),
            timezone=settings.policy.timezone,
            engine=settings.policy.engine,
            groups=settings.known_groups(),
            tests=sources.tests,
            heard=settings.sources(),
        )
    except PolicyProblems as error:
        problems.extend(_placed(settings, places, problem) for problem in error.problems)
        return None, problems
    return (None if problems else compiled), problems


def sound_policies(settings: Settings, places: Places, before: PolicySet | None) -> PolicySet:
    """Load a set that was found sound, from what is known of the one `before`. Raises ConfigProblems."""
    problems: list[Problem] = []
    texts = (*_texts("files", settings, places, problems), *shorthands(settings))
    if problems:
        raise ConfigProblems(problems)
    try:
        return policy.load_again(
            texts,
            settings.routes(),
            timezone=settings.policy.timezone,
            engine=settings.policy.engine,
            heard=settings.sources(),
            before=before,
        )
    except PolicyProblems as error:
        raise ConfigProblems([_placed(settings, places, problem) for problem in error.problems]) from error


def read_sources(settings: Settings, places: Places) -> Sources:
    """Read policy files, tests and shorthands as texts."""
    problems: list[Problem] = []
    files = tuple(_texts("files", settings, places, problems))
    tests = tuple(_texts("tests", settings, places, problems))
    documents = tuple(_documents(tests, problems))
    return Sources((*files, *shorthands(settings)), documents, tuple(problems))


def _documents(
    tests: Iterable[tuple[str, str]], problems: list[Problem]
) -> Iterator[tuple[str, Mapping[str, object]]]:
    for file, text in tests:
        tree, found = yaml.parse(text.encode(), file)
        problems.extend(found)
        document = tree.plain() if tree is not None else None
        if tree is not None and isinstance(document, dict):
            yield file, _with_lines(document, tree)
        elif not found:
            problems.append(
                Problem(file, 1, 1, "", "expected a section of keys", "see docs/reference/policy.md")
            )


def shorthands(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield the Cedar text of each route's `allow` and `public`, under the name of its place."""
    for index, route in enumerate(settings.route_settings):
        if route.allow is not None:
            written = route.allow.model_dump(exclude_defaults=True)
            yield f"{settings.file}#routes[{index}].allow", shorthand.render(route.name, written)
        if route.public:
            text = shorthand.render_public(route.name, route.public, route.public_methods)
            yield f"{settings.file}#routes[{index}].public", text


def _with_lines(document: dict[str, yaml.Plain], tree: yaml.Node) -> dict[str, object]:
    """Give every case its line, so that a failing one can be found."""
    cases, node = document.get("cases"), tree.child("cases")
    if not isinstance(cases, tuple) or node is None or node.items is None:
        return dict(document)
    lined = tuple(
        {**case, "__line__": item.line} if isinstance(case, dict) else case
        for case, item in zip(cases, node.items, strict=True)
    )
    return {**document, "cases": lined}


def _texts(
    key: Literal["files", "tests"], settings: Settings, places: Places, problems: list[Problem]
) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for index, pattern in enumerate(getattr(settings.policy, key)):
        found = settings.files.matching(pattern)
        if not found:
            message = f"no file matches {pattern}"
            problems.append(
                places.problem(message, "write the file, or mend the pattern", "policy", key, index)
            )
        for path in found[:MAX_FILES]:
            if str(path) not in seen:
                seen.add(str(path))
                yield str(path), _text(settings, path, (key, index), places, problems)


def _text(
    settings: Settings, path: Path, at: tuple[str, int], places: Places, problems: list[Problem]
) -> str:
    try:
        raw = settings.files.read(path, MAX_BYTES)
        if len(raw) > MAX_BYTES:
            raise ValueError("larger than 4 MiB")
        return raw.decode("utf-8")
    except OSError as error:
        reason = (error.strerror or "unreadable").lower()
    except UnicodeDecodeError:
        reason = "not UTF-8"
    except ValueError as error:
        reason = str(error)
    problems.append(places.problem(f"{path} can not be read: {reason}", "mend the file", "policy", *at))
    return ""


def _placed(settings: Settings, places: Places, found: policy.Problem) -> Problem:
    """Give a policy's problem the place of its file, of the shorthand it came from, or of the section."""
    file, _, where = found.file.partition("#")
    if where and file == str(settings.file):
        index, _, key = where.removeprefix("routes[").partition("].")
        message = re.sub(r"^policy [^ ]+: ", "", found.message)  # one `allow` makes several policies
        return places.problem(message, found.remedy, "routes", int(index), key)
    if not Path(found.file).is_absolute():
        return places.problem(found.message, found.remedy, "policy", key=True)
    return Problem(found.file, max(found.line, 1), 1, "", found.message, found.remedy)


def places_of(settings: Settings) -> Places:
    """Read the file again for its lines."""
    file = settings.file
    tree, _ = yaml.parse(settings.files.read(file, yaml.MAX_BYTES), str(file))
    return Places(str(file), tree if tree is not None else yaml.Node(1, 1))
