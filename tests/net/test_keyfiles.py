"""Precious files: whole, private, and one of them."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ztproxy.net import keyfiles
from ztproxy.net.keyfiles import KeyFileError


def test_a_key_is_made_once_even_by_many(tmp_path: Path) -> None:
    path = tmp_path / "k.pem"
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(lambda _: keyfiles.load_or_create_key(path), range(8)))
    assert len({keyfiles.key_pem(key) for key in keys}) == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["k.pem"]


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o620, 0o777])
def test_a_key_of_others_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "k.pem"
    keyfiles.load_or_create_key(path)
    path.chmod(mode)
    with pytest.raises(KeyFileError, match="others may read"):
        keyfiles.load_key(path)


def test_what_is_no_p256_key(tmp_path: Path) -> None:
    others = [rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())]
    contents = [k.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) for k in others]
    for content in (*contents, b"", b"secret rubbish"):
        keyfiles.write(tmp_path / "k.pem", content)
        with pytest.raises(KeyFileError) as caught:
            keyfiles.load_key(tmp_path / "k.pem")
        assert "rubbish" not in str(caught.value)


def test_a_write_replaces_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    keyfiles.write(path, b"old", 0o644)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(KeyFileError, match="No space left"):
        keyfiles.write(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"]


def test_reading_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * (keyfiles.MAX_FILE + 1))
    with pytest.raises(KeyFileError, match="too large"):
        keyfiles.read(tmp_path / "f")
    with pytest.raises(KeyFileError, match="No such file"):
        keyfiles.read(tmp_path / "missing")


def test_a_folder_is_closed_to_others(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True, mode=0o755)
    assert stat.S_IMODE(keyfiles.private_folder(folder).stat().st_mode) == 0o700
