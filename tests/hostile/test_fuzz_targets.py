"""The fuzz targets on the corpus and on mutations of it, for a bounded time; `scripts/fuzz` goes on."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent / "fuzz"))

from seeds import DICTIONARY, seeds
from targets import TARGETS

SEEDS = {name: list(seeds(name)) for name in TARGETS}

#: A place and what to do there: cut out, repeat, put in a word of the protocol, a byte, or another input.
edit = st.tuples(
    st.integers(0, 1 << 16),
    st.one_of(
        st.tuples(st.just("cut"), st.integers(1, 40)),
        st.tuples(st.just("repeat"), st.integers(1, 40)),
        st.tuples(st.just("word"), st.sampled_from(DICTIONARY)),
        st.tuples(st.just("byte"), st.binary(min_size=1, max_size=1)),
        st.tuples(st.just("splice"), st.integers(0, 1 << 16)),
    ),
)
edits = st.lists(edit, max_size=4)


def mutated(name: str, start: int, changes: list[tuple[int, tuple[str, object]]]) -> bytes:
    known = SEEDS[name]
    data = known[start % len(known)]
    for place, (what, value) in changes:
        at = place % (len(data) + 1)
        if isinstance(value, bytes):
            data = data[:at] + value + data[at + (what == "byte") :]
        elif what == "cut":
            data = data[:at] + data[at + int(str(value)) :]
        elif what == "repeat":
            data = data[:at] + data[at : at + int(str(value))] + data[at:]
        else:
            other = known[int(str(value)) % len(known)]
            data = data[:at] + other[place % (len(other) + 1) :]
    return data[:4096]


@pytest.mark.parametrize("name", TARGETS)
def test_seeds(name: str) -> None:
    assert SEEDS[name]
    for seed in SEEDS[name]:
        TARGETS[name](seed)


def mutation_test(name: str, examples: int) -> Callable[..., None]:
    @settings(max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.integers(0, 10_000), edits)
    def test(start: int, changes: list[tuple[int, tuple[str, object]]]) -> None:
        TARGETS[name](mutated(name, start, changes))

    return test


test_requests = mutation_test("request", 300)
test_responses = mutation_test("response", 300)
test_chunks = mutation_test("chunked", 300)
test_frames = mutation_test("frames", 300)
test_hellos = mutation_test("clienthello", 300)
test_connections = mutation_test("connection", 200)


@given(st.sampled_from(sorted(TARGETS)), st.binary(max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_bytes(name: str, data: bytes) -> None:
    TARGETS[name](data)
