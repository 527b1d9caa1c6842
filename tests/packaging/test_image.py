"""The Dockerfile and its context; there is no engine here to build it."""

import re
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "Dockerfile").read_text()
FINAL = TEXT[TEXT.rindex("\nFROM ") :]


def test_hadolint_has_no_complaint(tool: Callable[[str], str]) -> None:
    command = [tool("hadolint"), str(ROOT / "Dockerfile")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_final_image_is_not_root_and_builds_nothing() -> None:
    assert TEXT.count("\nFROM ") == 2
    assert re.search(r"^USER 10001:10001$", FINAL, re.MULTILINE)
    assert not re.search(r"pip install|apt-get|gcc|\bADD\b", FINAL)
    assert "/healthz" in FINAL and 'ENTRYPOINT ["ztproxy"]' in FINAL and 'CMD ["run"]' in FINAL
    assert not re.search(r"^(ENV|ARG).*(SECRET|TOKEN|PASSWORD)", TEXT, re.MULTILINE | re.IGNORECASE)


def test_only_what_is_copied_is_in_the_context() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = set()
    for line in re.findall(r"^COPY (?!--from)(.+)$", TEXT, re.MULTILINE):
        copied.update(line.split()[:-1])
    assert copied == allowed
    assert all((ROOT / name).exists() for name in allowed)


def test_the_wheel_carries_everything_that_runs(tmp_path: Path) -> None:
    build = pytest.importorskip("hatchling.builders.wheel")
    made = next(build.WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"]))
    with zipfile.ZipFile(made) as wheel:
        names = set(wheel.namelist())
    for path in (ROOT / "ztproxy").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith("."):
            assert str(path.relative_to(ROOT)) in names, path
    assert any(name.endswith("licenses/LICENSE") for name in names)
    entry = next(name for name in names if name.endswith("entry_points.txt"))
    with zipfile.ZipFile(made) as wheel:
        assert b"ztproxy = ztproxy.cli.main:main" in wheel.read(entry)


def test_the_license_is_whole() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert text.lstrip().startswith("Apache License\n                           Version 2.0, January 2004")
    assert "END OF TERMS AND CONDITIONS" in text and len(text) == 11357
