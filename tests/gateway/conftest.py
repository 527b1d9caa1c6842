import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from gateway_fakes import Stage


@pytest.fixture
async def stage() -> Stage:
    return Stage()
