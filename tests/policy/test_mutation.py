"""Does the differential test notice a broken engine? Seeded faults, each of which it has to find.

Each fault is put into a copy of the room, on which `differential.py` runs in a process of its own.
"""

# ruff: noqa: E501 - tables are read by column

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import ztproxy

HERE = Path(__file__).parent
SOURCE = Path(ztproxy.__file__).parent

#: name -> (file, what is there, what is put in its place)
FAULTS: dict[str, tuple[str, str, str]] = {
    "bool equals int": ("values.py", "if type(left) is not type(right):\n        return False", "if False:\n        return False"),
    "sets mix bool and int": ("values.py", "if kind is str or kind is int or", "if kind is bool or kind is str or kind is int or"),
    "unknown facts have keys": ("values.py", "    if value is UNKNOWN:\n        fail", "    if False:\n        fail"),
    "unknown facts can be compared": ("values.py", "        return bool(key(left) == key(right))", "        return left.keys() == right.keys() and all(equal(v, right[k]) for k, v in left.items())"),
    "not in itself": ("values.py", "self.ancestors | {self.uid}", "self.ancestors"),
    "decimal places": ("literals.py", 'match[3].ljust(4, "0")', "match[3]"),
    "offset from UTC turned round": ("literals.py", '-offset if match[8] == "+" else offset', 'offset if match[8] == "+" else -offset'),
    "no overflow": ("literals.py", "return value if LONG_MIN <= value <= LONG_MAX else fail", "return value if True else fail"),
    "bare IPv4 inside IPv6": ("literals.py", 'if ":" in address and "." in address:', "if False:"),
    "prefix with leading zero": ("literals.py", '(len(prefix) > 1 and prefix[0] == "0") or ', ""),
    "anything is a bool": ("operations.py", "return value if type(value) is bool else fail", "return bool(value) if True else fail"),
    "unknown facts are values": ("operations.py", "return value if value is not UNKNOWN else fail", "return value if True else fail"),
    "has on a missing entity": ("operations.py", "if record is None or name not in record:\n        return False", "if record is None:\n        return True\n    if name not in record:\n        return False"),
    "in a set of anything": ("operations.py", "if any(type(one) is not Uid for one in above):", "if False:"),
    "in is never reflexive": ("operations.py", "    if left in above:\n        return True\n", ""),
    "containsAll turned round": ("operations.py", "right.keys <= left.keys", "left.keys <= right.keys"),
    "containsAny of nothing": ("operations.py", "not left.keys.isdisjoint(right.keys)", "left.keys.isdisjoint(right.keys)"),
    "wildcard overlap": ("operations.py", "len(value) - position >= len(pieces[-1]) and ", ""),
    "order of strings": ("operations.py", "        fail()\n    return bool(left < right)\n\n\ndef less_equal", "        pass\n    return bool(left < right)\n\n\ndef less_equal"),
    "less or equal": ("operations.py", "return bool(left < right)\n\n\ndef less_equal", "return bool(left <= right)\n\n\ndef less_equal"),
    "decimal less or equal": ("operations.py", "return bool(left < right) if type(left) is Decimal", "return bool(left <= right) if type(left) is Decimal"),
    "whole units of negative time": ("operations.py", "value.ms // unit if value.ms >= 0 else -(-value.ms // unit)", "value.ms // unit"),
    "network wider than range": ("operations.py", " or inner.prefix < outer.prefix", ""),
    "ranges of other families": ("operations.py", "inner.version != outer.version or ", ""),
    "missing tag": ("operations.py", "if name in found.tags else fail(f\"missing tag {name}\")", "if name in found.tags else 1"),
    "unless is when": ("compile.py", "else _fails(clause.expr)", "else test(clause.expr)"),
    "conditions any of": ("shapes.py", "            if not part.holds(e):\n                return False\n        return True", "            if part.holds(e):\n                return True\n        return False"),
    "or is and": ("compile.py", "left.holds(e) or right.holds(e)", "left.holds(e) and right.holds(e)"),
    "constant without type": ("shapes.py", "return value if type(value) is int else fail()", "return value"),
    "constant off by one": ("shapes.py", "return v > k if how == GREATER else v >= k", "return v > k"),
    "string inequality": ("compile.py", "left.run(e) != k", "left.run(e) == k"),
    "has stops early": ("compile.py", "for name in names[:-1]:", "for name in ():"),
    "has sees unknown facts": ("compile.py", "return value is not UNKNOWN or anything(e)", "return True"),
    "reading unknown facts": ("shapes.py", "return value if value is not _UNKNOWN else ops.known(value, name)", "return value"),
    "reading unknown facts along": ("shapes.py", "        if value is _UNKNOWN:\n            ops.known(value, name)\n    return value", "    return value"),
    "is without in": ("compile.py", "return is_type(value, name) and inside(value, above.run(e), e)", "return is_type(value, name)"),
    "is with in at once": ("compile.py", "return is_type(value, name) and inside(value, above.run(e), e)", "return inside(value, above.run(e), e) and is_type(value, name)"),
    "set of words contains anything": ("compile.py", "return type(v) is str and v in ks", "return v in ks"),
    "an unknown fact of the principal": ("shapes.py", "if value is not None and value is not _UNKNOWN else", "if value is not None else"),
    "anything is young": ("shapes.py", "if isinstance(a, Datetime) and isinstance(b, Datetime):", "if hasattr(a, 'ms') and hasattr(b, 'ms'):"),
    "age below": ("shapes.py", "return age <= self._k", "return age < self._k"),
    "age overflows": ("shapes.py", "if -_SPAN <= age <= _SPAN:", "if True:"),
    "group lists any": ("compile.py", "not ks.isdisjoint(e.lineage)", "ks <= e.lineage"),
    "greater is less": ("operators.py", '"greater": lambda left, right: ops.less(right, left)', '"greater": lambda left, right: ops.less(left, right)'),
    "forbids lose": ("program.py", "    if forbids:\n        return forbids[0]", "    if forbids and not permits:\n        return forbids[0]"),
    "errors are skipped": ("program.py", "    if errors:\n        return Decision", "    if errors and not (permits or forbids):\n        return Decision"),
    "principal ==": ("program.py", "if same is not None and same != principal:\n            continue", "pass"),
    "principal in": ("program.py", "if above is not None and above not in lineage:\n            continue", "pass"),
    "principal is": ("program.py", "if str(entity_type) != kind:\n                return None", "if False:\n                return None"),
    "action in": ("program.py", "uid_of(entity) in action.lineage for", "uid_of(entity) == action.uid for"),
    "resource ==": ("program.py", "return _uid(entity) == resource.uid", "return _uid(entity) in resource.lineage"),
    "resource is": ("program.py", "return str(entity_type) == resource.uid.type\n", "return True\n"),
    "reading nothing settles it": ("compile.py", "        return node.name == \"context\"\n", "        return False\n"),
    "resources above": ("program.py", "for uid in resource.lineage:", "for uid in (resource.uid,):"),
}  # fmt: skip


def broken(folder: Path, fault: tuple[str, str, str]) -> Path:
    """Return a copy of the room with the fault in it."""
    name, before, after = fault
    for room in ("model", "policy"):
        shutil.copytree(
            SOURCE / room, folder / "ztproxy" / room, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(SOURCE / "__init__.py", folder / "ztproxy")
    file = folder / "ztproxy" / "policy" / name
    text = file.read_text()
    assert text.count(before) == 1, f"{name} has {text.count(before)} times: {before}"
    file.write_text(text.replace(before, after))
    return folder


def survives(folder: Path, fault: tuple[str, str, str]) -> bool:
    """Whether the differential test finds nothing wrong with this fault."""
    env = os.environ | {"PYTHONPATH": str(broken(folder, fault)), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, str(HERE / "differential.py"), "3000", "7"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=100)
    return done.returncode == 0


@pytest.mark.timeout(400)
def test_every_seeded_fault_is_found(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        jobs = {
            name: pool.submit(survives, tmp_path / f"fault{number}", fault)
            for number, (name, fault) in enumerate(FAULTS.items())
        }
        survivors = [name for name, job in jobs.items() if job.result()]
    assert survivors == []
    assert len(FAULTS) >= 25


def test_the_engine_as_it_is_passes(tmp_path: Path) -> None:
    harmless = ("builtin.py", '"""What every policy set contains', '"""What each policy set contains')
    assert survives(tmp_path, harmless)
