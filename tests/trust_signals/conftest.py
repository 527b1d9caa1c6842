"""Tokens of a transmitter that shares no code with us."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import caep_transmitter

from ztproxy.net.clock import FixedClock


@pytest.fixture
def clock():
    return FixedClock()


@pytest.fixture
def signer(clock):
    signer = caep_transmitter.Signer()
    signer.now = lambda: clock.now() // 1000
    return signer
