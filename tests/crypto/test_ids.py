"""Names, bearer values and codes."""

import os
import re
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from ztproxy.crypto.ids import (
    RequestIds,
    handle_digest,
    is_device_id,
    new_code,
    new_device_id,
    new_session_id,
    new_token,
    normal_code,
)


@given(st.binary(min_size=32, max_size=32))
def test_forms(seed: bytes) -> None:
    def entropy(size: int) -> bytes:
        return seed[:size]

    assert re.fullmatch(r"ses_[a-z2-7]{26}", new_session_id(entropy))
    assert is_device_id(new_device_id(entropy))
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", new_token(entropy))
    code = new_code(entropy)
    assert re.fullmatch(r"[0-9A-HJKMNP-TV-Z]{4}(-[0-9A-HJKMNP-TV-Z]{4}){2}", code)
    assert normal_code(code) == code.replace("-", "")
    assert normal_code(f" {code.lower().replace('0', 'o').replace('1', 'l')} ") == code.replace("-", "")


def test_codes_use_all_their_bits(entropy: Callable[[int], bytes]) -> None:
    assert new_code(lambda size: b"\0" * size) == "0000-0000-0000"
    assert new_code(lambda size: b"\xff" * size) == "ZZZZ-ZZZZ-ZZZZ"
    assert len({new_code(entropy) for _ in range(2000)}) == 2000


@given(st.text(max_size=80))
def test_any_text_is_a_code_or_none(text: str) -> None:
    code = normal_code(text)
    assert code is None or re.fullmatch(r"[0-9A-HJKMNP-TV-Z]{12}", code)


def test_a_digest_never_fails() -> None:
    assert handle_digest("a") == "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
    assert len(handle_digest("\ud800ä")) == 64
    assert not is_device_id("dev_" + "a" * 25)


def test_request_ids_are_all_different_and_use_all_entropy_once() -> None:
    drawn: list[bytes] = []

    def entropy(size: int) -> bytes:
        drawn.append(os.urandom(size))
        return drawn[-1]

    ids = RequestIds(entropy)
    made = [ids.new() for _ in range(600)]
    assert len(set(made)) == 600
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in made)
    assert "".join(made).startswith(drawn[0].hex() + drawn[1].hex())
    assert len(drawn) == 3
