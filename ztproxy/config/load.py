"""From a file to settings that can be served, or to all that is wrong with it at once.

Called by `service` at start and by `ztproxy check`. A file with any problem yields no settings.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from ztproxy.config import yaml
from ztproxy.config.checks import every
from ztproxy.config.draft import draft
from ztproxy.config.files import Files
from ztproxy.config.places import Places
from ztproxy.config.policies import find_policies, sound_policies
from ztproxy.config.problems import ConfigProblems, Problem
from ztproxy.config.settings import Settings
from ztproxy.policy.engine import PolicySet


def restore(path: Path, packed: bytes, before: PolicySet | None = None) -> tuple[Settings, PolicySet]:
    """Return settings and policies from the files that `Settings.files` packed, unchecked: they were checked.

    What is in force stays so, even if a certificate has expired since. What is the same in the policies
    `before` is not read anew. Raises ConfigProblems, ValueError.
    """
    settings, places = _restored(path, packed)
    return settings, sound_policies(settings, places, before)


def restore_settings(path: Path, packed: bytes) -> Settings:
    """Return the settings alone. Raises as `restore`."""
    return _restored(path, packed)[0]


def _restored(path: Path, packed: bytes) -> tuple[Settings, Places]:
    path, files = path.absolute(), Files(packed)
    tree, problems = _tree(path, files)
    if tree is None:
        raise ConfigProblems(problems)
    read = draft(tree, path, os.environ, files)
    return _sound(read.settings, list(read.problems), files), read.places


def load(path: Path, environ: Mapping[str, str] | None = None) -> Settings:
    """Read, validate and check the settings without the policies.

    `environ` is where `env:` secrets come from; default: the process's. Raises ConfigProblems.
    """
    files = Files()
    settings, _, problems = _read(path, environ, files, policies=False)
    return _sound(settings, problems, files)


def load_all(path: Path, environ: Mapping[str, str] | None = None) -> tuple[Settings, PolicySet]:
    """Load settings and policies; what is wrong with either is raised together. Raises ConfigProblems."""
    files = Files()
    settings, policies, problems = _read(path, environ, files, policies=True)
    settings = _sound(settings, problems, files)
    assert policies is not None, "policies without a problem are loaded"
    return settings, policies


def _sound(settings: Settings | None, problems: list[Problem], files: Files) -> Settings:
    if problems or settings is None:
        raise ConfigProblems(problems, (*files.paths, *files.patterns))
    return settings


def _read(
    path: Path, environ: Mapping[str, str] | None, files: Files, *, policies: bool
) -> tuple[Settings | None, PolicySet | None, list[Problem]]:
    path = path.absolute()
    tree, problems = _tree(path, files)
    if tree is None:
        return None, None, problems
    read = draft(tree, path, os.environ if environ is None else environ, files)
    problems.extend(read.problems)
    if read.settings is None:
        return None, None, problems
    problems.extend(every.find(read.settings, read.places, read.broken))
    compiled = None
    if policies and _policies_can_be_judged(read.broken, problems):
        compiled, found = find_policies(read.settings, read.places)
        problems.extend(found)
    return read.settings, compiled, problems


def _policies_can_be_judged(broken: frozenset[str], problems: list[Problem]) -> bool:
    """Policies speak of routes and groups by name: while those are wrong, everything about them would be."""
    misnamed = any(problem.where.endswith((".name", ".app")) for problem in problems)
    return not misnamed and not broken & {"routes", "workloads", "identity", "policy"}


def _tree(path: Path, files: Files) -> tuple[yaml.Node | None, list[Problem]]:
    """Read the file into a tree, at most one byte more than is allowed."""
    file = str(path)
    try:
        return yaml.parse(files.read(path, yaml.MAX_BYTES), file)
    except OSError as error:
        reason = (error.strerror or "unreadable").lower()
        message = f"the configuration can not be read: {reason}"
        return None, [Problem(file, 1, 1, "", message, "name it with --config, or `ztproxy init DIRECTORY`")]
