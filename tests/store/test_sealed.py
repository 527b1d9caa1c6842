"""Secrets in the store: unreadable, bound to their place, and told when the key is another one."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ztproxy.crypto.envelope import Envelope, parse_key
from ztproxy.net.clock import entropy
from ztproxy.store.interface import StoreUnavailable
from ztproxy.store.sealed import SEALED, SealedStore
from ztproxy.store.sqlite import SqliteStore

OLD, NEW = bytes(32), bytes(range(32))


@pytest.fixture
async def plain(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.open(tmp_path / "s.db", lambda: 1_800_000_000_000)
    yield store
    await store.close()


@pytest.mark.parametrize("kind", sorted(SEALED))
async def test_a_secret_is_not_to_be_read_from_the_back_end(
    plain: SqliteStore, tmp_path: Path, kind: str
) -> None:
    store = SealedStore(plain, [NEW], entropy)
    await store.put(kind, "k", b"a-secret-verifier")
    found = await store.get(kind, "k")
    assert found is not None and found.value == b"a-secret-verifier"
    assert [one.value for one in await store.scan(kind)] == [b"a-secret-verifier"]
    assert [one.value for one in await store.some([(kind, "k"), (kind, "l")])] == [b"a-secret-verifier"]
    for change in await plain.after(0) or ():
        assert b"verifier" not in (change.value or b"")
    for file in tmp_path.iterdir():
        assert b"a-secret-verifier" not in file.read_bytes()


async def test_other_kinds_pass_as_they_are(plain: SqliteStore) -> None:
    await SealedStore(plain, [NEW], entropy).put("session", "k", b"v")
    found = await plain.get("session", "k")
    assert found is not None and found.value == b"v"


async def test_a_value_that_was_moved_or_changed_does_not_open(plain: SqliteStore) -> None:
    store = SealedStore(plain, [NEW], entropy)
    await store.put("code", "mine", b"v")
    sealed = await plain.get("code", "mine")
    assert sealed is not None
    await plain.put("code", "other", sealed.value)
    await plain.put("tokens", "mine", sealed.value)
    await plain.put("code", "changed", sealed.value[:-1] + bytes([sealed.value[-1] ^ 1]))
    await plain.put("code", "cut", sealed.value[:10])
    await plain.put("code", "bare", b"written by somebody without the key")
    for kind, key in (
        ("code", "other"),
        ("tokens", "mine"),
        ("code", "changed"),
        ("code", "cut"),
        ("code", "bare"),
    ):
        with pytest.raises(StoreUnavailable, match="does not open") as told:
            await store.get(kind, key)
        assert "somebody" not in str(told.value)


async def test_keys_rotate(plain: SqliteStore) -> None:
    await (await SealedStore(plain, [OLD], entropy).prove()).put("code", "k", b"v")
    both = await SealedStore(plain, [NEW, OLD], entropy).prove()
    found = await both.get("code", "k")
    assert found is not None and found.value == b"v"
    await both.put("code", "k2", b"v2")
    after = SealedStore(plain, [NEW], entropy)
    assert (await after.get("code", "k2")) is not None
    assert await after.prove(), "once a start had both keys, the old one is not needed any more"


async def test_another_key_is_told_at_the_start(plain: SqliteStore) -> None:
    await SealedStore(plain, [OLD], entropy).prove()
    with pytest.raises(StoreUnavailable, match=r"store\.keys"):
        await SealedStore(plain, [NEW], entropy).prove()


@pytest.mark.parametrize("text", ["", "c2hvcnQ=", "!" * 44, "é" * 44])
def test_what_is_no_key_is_told_without_its_text(text: str) -> None:
    with pytest.raises(ValueError) as told:
        parse_key(text)
    assert not text or text not in str(told.value)


def test_two_seals_of_one_value_differ() -> None:
    envelope = Envelope([NEW])
    assert envelope.seal(b"v", b"p", entropy(12)) != envelope.seal(b"v", b"p", entropy(12))
