"""What `scripts/compile` makes and keeps: tests may run an untrained build, benches and wheels never do."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: Stands for Python, pip and the compiler: a wheel holds how it was compiled, and every compilation is noted.
PYTHON = """#!/usr/bin/env bash
case "$*" in
  -VV) echo "Python 3" ;;
  "-m pip wheel"*)
    echo "$ZTPROXY_COMPILE" >>compilations
    [[ ! -e broken ]] || exit 1
    while [[ $1 != --wheel-dir ]]; do shift; done
    mkdir -p "$2" && echo "$ZTPROXY_COMPILE" >"$2/it.whl" ;;
  "-m zipfile -e"*) mkdir -p "$5" && cp "$4" "$5/how" ;;
  *) exit 9 ;;
esac
"""


class Checkout:
    """A folder with the script, one module, and nothing that takes time."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in ("scripts", "ztproxy", ".venv/bin"):
            (root / folder).mkdir(parents=True)
        shutil.copy(ROOT / "scripts" / "compile", root / "scripts")
        for name in ("pyproject.toml", "hatch_build.py", "ztproxy/one.py"):
            (root / name).write_text("1\n")
        python = root / ".venv" / "bin" / "python"
        python.write_text(PYTHON)
        python.chmod(0o755)

    def compile(self, *words: str, how: str | None = None, status: int = 0) -> str:
        """Run the script; return the folder it names."""
        env = {name: value for name, value in os.environ.items() if name != "ZTPROXY_COMPILE"}
        if how is not None:
            env["ZTPROXY_COMPILE"] = how
        command = [str(self.root / "scripts" / "compile"), *words]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stderr
        return done.stdout.strip()

    @property
    def compilations(self) -> list[str]:
        noted = self.root / "compilations"
        return noted.read_text().split() if noted.exists() else []

    def how(self, folder: str) -> str:
        return (self.root / folder / "how").read_text().strip()

    def change(self) -> None:
        with (self.root / "ztproxy" / "one.py").open("a") as file:
            file.write("2\n")


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_tests_compile_without_training_where_no_bench_and_no_wheel_looks(checkout: Checkout) -> None:
    assert checkout.compile("for-tests") == "build/untrained"
    assert checkout.how("build/untrained") == "untrained"
    assert not (checkout.root / "build" / "compiled").exists()
    assert not (checkout.root / "dist").exists()
    assert checkout.compile("for-tests") == "build/untrained"
    assert checkout.compilations == ["untrained"], "once for each change"


def test_a_bench_has_its_own_after_the_tests(checkout: Checkout) -> None:
    checkout.compile("for-tests")
    assert checkout.compile() == "build/compiled"
    assert checkout.how("build/compiled") == "1"
    assert (checkout.root / "dist" / "it.whl").read_text() == "1\n"
    assert checkout.compilations == ["untrained", "1"]


@pytest.mark.parametrize("how", ["1", "untrained"])
def test_tests_take_what_is_there_of_these_sources(checkout: Checkout, how: str) -> None:
    checkout.compile(how=how)
    assert checkout.compile("for-tests") == "build/compiled"
    assert checkout.compilations == [how]


def test_of_other_sources_nothing_is_taken(checkout: Checkout) -> None:
    checkout.compile()
    checkout.change()
    assert checkout.compile("for-tests") == "build/untrained"
    checkout.change()
    assert checkout.compile("for-tests") == "build/untrained"
    assert checkout.compilations == ["1", "untrained", "untrained"]
    checkout.compile()
    assert checkout.compilations[-1] == "1"


def test_what_was_tried_without_training_is_no_bench(checkout: Checkout) -> None:
    checkout.compile(how="untrained")
    checkout.compile()
    assert checkout.how("build/compiled") == "1"


def test_where_it_can_not_be_compiled_nothing_old_is_left(checkout: Checkout) -> None:
    for words, folder in (((), "compiled"), (("for-tests",), "untrained")):
        checkout.compile(*words)
        checkout.change()
        (checkout.root / "broken").touch()
        assert checkout.compile(*words, status=1) == ""
        assert not (checkout.root / "build" / folder).exists()
        (checkout.root / "broken").unlink()
