"""What small programs load: the connector starts without store, policy and authority."""

import subprocess
import sys

import pytest

LARGE = (
    "store",
    "policy",
    "trust",
    "administrator",
    "gateway",
    "upstream",
    "recording",
    "portal",
    "api",
    "service",
)


@pytest.mark.parametrize("verb", ["connector", "agent"])
def test_it_loads_none_of_the_large_rooms(verb: str) -> None:
    code = f"import sys, ztproxy.cli.{verb}; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert f"ztproxy.{verb}.program" in loaded
    assert not {name for name in loaded if name.startswith(tuple(f"ztproxy.{room}" for room in LARGE))}
    assert not loaded & {"sqlite3", "redis", "cedarpy"}
