"""Tools that check the chart and the Dockerfile: those of scripts/chart-tools, else those on PATH."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / ".cache/chart-tools"


@pytest.fixture(scope="session")
def tool() -> Callable[[str], str]:
    """Return the path of a program, or skip the test and say how to get it."""

    def find(name: str) -> str:
        for folder in (TOOLS, TOOLS / "venv/bin"):
            if (folder / name).is_file():
                return str(folder / name)
        found = shutil.which(name)
        if found is None:
            pytest.skip(f"{name} is not here; scripts/chart-tools fetches it")
        return found

    return find
