"""SPIFFE IDs: the grammar by example and by property."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztproxy.crypto.spiffe import SpiffeError, SpiffeId, make_id, parse_id, parse_trust_domain

DOMAIN = st.text(string.ascii_lowercase + string.digits + "._-", min_size=1, max_size=255)
SEGMENT = st.text(string.ascii_letters + string.digits + "._-", min_size=1, max_size=40).filter(
    lambda text: text not in (".", "..")
)


@given(DOMAIN, st.lists(SEGMENT, max_size=8))
def test_what_is_made_reads_back_as_the_same(domain: str, segments: list[str]) -> None:
    identity = make_id(domain, *segments)
    assert parse_id(str(identity)) == identity
    assert identity == SpiffeId(domain, "".join(f"/{segment}" for segment in segments))


@given(st.text(max_size=80))
def test_any_text_is_an_id_or_one_kind_of_error(text: str) -> None:
    for candidate in (text, f"spiffe://{text}", f"spiffe://td/{text}"):
        try:
            identity = parse_id(candidate)
        except SpiffeError:
            continue
        assert str(identity) == candidate  # nothing is repaired
        assert candidate.isascii()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "spiffe://",
        "spiffe:///x",
        "SPIFFE://td/x",
        "spiffe://TD/x",
        "spiffe://td/",
        "spiffe://td//x",
        "spiffe://td/x/",
        "spiffe://td/./x",
        "spiffe://td/../x",
        "spiffe://td:80/x",
        "spiffe://user@td/x",
        "spiffe://td/x?q",
        "spiffe://td/x#f",
        "spiffe://td/%41",
        "spiffe://td/ü",
        "spiffe://td/x\n",
        "spiffe://td\n/x",
        "https://td/x",
        "spiffe://td/" + "a" * 2048,
        "spiffe://" + "a" * 256 + "/x",
    ],
)
def test_what_is_no_id(text: str) -> None:
    with pytest.raises(SpiffeError):
        parse_id(text)


def test_the_bounds_are_inclusive() -> None:
    assert parse_trust_domain("a" * 255) == "a" * 255
    assert len(str(parse_id("spiffe://td/" + "a" * (2048 - 12)))) == 2048
