"""What a posture document amounts to."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztproxy.crypto.posture_document import Observation, PostureDocument, PostureMalformed, build, parse
from ztproxy.model.subject import Posture
from ztproxy.trust.posture.document import PostureRefused, judge

NOW = 1_800_000_000_000
SECONDS = NOW // 1000
DEVICE = "dev_" + "a" * 26


def posture(checks: list[dict[str, Any]]) -> Posture:
    document = parse({"seq": 1, "checks": checks})
    return judge(document, device_id=DEVICE, digest="d", last=None, now=NOW)


def test_all_passed_is_healthy() -> None:
    found = posture(
        [
            {"id": "a", "result": "pass", "observed_at": SECONDS},
            {"id": "b", "result": "pass", "observed_at": SECONDS - 899},
        ]
    )
    assert found.healthy and found.reported_at == NOW and found.checks["b"].observed_at == NOW - 899_000


@pytest.mark.parametrize(
    "check",
    [
        {"result": "fail", "observed_at": SECONDS},
        {"result": "unknown", "observed_at": SECONDS},
        {"result": "PASS", "observed_at": SECONDS},
        {"result": True, "observed_at": SECONDS},
        {"result": ["pass"], "observed_at": SECONDS},
        {"result": None, "observed_at": SECONDS},
        {"observed_at": SECONDS},
        {"result": "pass"},
        {"result": "pass", "observed_at": None},
        {"result": "pass", "observed_at": "2027-01-15T08:00:00Z"},
        {"result": "pass", "observed_at": True},
        {"result": "pass", "observed_at": 0},
        {"result": "pass", "observed_at": -5},
        {"result": "pass", "observed_at": 10**400},
        {"result": "pass", "observed_at": SECONDS - 901},
    ],
)
def test_whatever_is_not_a_fresh_pass_is_not_healthy(check: dict[str, Any]) -> None:
    good = {"id": "a", "result": "pass", "observed_at": SECONDS}
    found = posture([good, {"id": "b", **check}])
    assert not found.healthy
    assert found.checks["b"].result in ("fail", "unknown")


def test_nothing_reported_is_not_healthy() -> None:
    assert not posture([]).healthy


def test_a_small_skew_is_cut_to_now_and_more_is_refused() -> None:
    assert (
        posture([{"id": "a", "result": "pass", "observed_at": SECONDS + 60}]).checks["a"].observed_at == NOW
    )
    with pytest.raises(PostureRefused, match="future"):
        posture([{"id": "a", "result": "pass", "observed_at": SECONDS + 61}])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
ENTRY = st.fixed_dictionaries(
    {"id": st.sampled_from(["a", "b", "c"])}, optional={"result": JSON, "observed_at": JSON}
)


@given(
    st.dictionaries(st.sampled_from(["seq", "checks", "os", "source", "sub", "iss"]), JSON | st.lists(ENTRY))
)
def test_any_claims_are_judged_or_refused(claims: dict[str, Any]) -> None:
    try:
        found = judge(parse(claims), device_id=DEVICE, digest="d", last=None, now=NOW)
    except (PostureMalformed, PostureRefused):
        return
    assert found.healthy == (bool(found.checks) and all(c.result == "pass" for c in found.checks.values()))
    assert all(check.observed_at <= NOW for check in found.checks.values())


@given(
    st.dictionaries(
        st.from_regex(r"[a-z][a-z0-9_]{0,10}", fullmatch=True),
        st.builds(
            Observation,
            st.sampled_from(["pass", "fail", "unknown"]),
            st.none() | st.integers(SECONDS - 800, SECONDS),
        ),
        max_size=10,
    ),
    st.integers(1, 1 << 52),
)
def test_what_the_agent_builds_is_what_is_read(checks: dict[str, Observation], seq: int) -> None:
    document = PostureDocument(seq=seq, source="agent", os="Debian 12", checks=checks)
    assert parse(build(document, DEVICE, "https://portal", NOW, "j")) == document
