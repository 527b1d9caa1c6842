import asyncio
import sys
from pathlib import Path

import pytest
import uvloop

sys.path.insert(0, str(Path(__file__).parent))

from gateway_fakes import Stage
from gateway_pki import Authority

BOTH_LOOPS = {"test_sockets.py"}


@pytest.fixture
async def stage() -> Stage:
    return Stage()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories(config, item):
    """Tests over real sockets run on both loops: their TLS and their back-pressure differ."""
    if item.path.name in BOTH_LOOPS:
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}
