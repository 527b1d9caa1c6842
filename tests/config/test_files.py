"""Files as they were read: once, whole or not at all, the same for whoever gets them packed."""

import shutil
from pathlib import Path

import pytest

from ztproxy.config.files import Files
from ztproxy.config.load import load_all, restore

GOOD = Path(__file__).parent / "good.yaml"


def test_a_file_is_read_once(tmp_path: Path) -> None:
    path, files = tmp_path / "a", Files()
    path.write_text("first")
    assert files.read(path, 99) == b"first"
    path.write_text("second")
    assert files.read(path, 99) == b"first"
    path.unlink()
    assert Files(files.pack()).read(path, 99) == b"first"


def test_what_was_not_there_stays_away(tmp_path: Path) -> None:
    path, files = tmp_path / "late.cedar", Files()
    pattern = str(tmp_path / "*.cedar")
    with pytest.raises(FileNotFoundError):
        files.read(path, 99)
    assert files.matching(pattern) == []
    path.write_text("came later")
    for one in (files, Files(files.pack())):
        with pytest.raises(FileNotFoundError):
            one.read(path, 99)
        assert one.matching(pattern) == []
    assert files.paths == (str(path),)
    assert files.patterns == (pattern,)


def test_packed_files_are_all_there_is(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("on disk")
    packed = Files(Files().pack())
    with pytest.raises(FileNotFoundError):
        packed.read(path, 99)
    assert packed.matching(str(tmp_path / "*")) == []
    with pytest.raises(ValueError, match=r".+"):
        Files(b"rubbish")


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        Files().read(tmp_path, 99)
    with pytest.raises(IsADirectoryError):
        Files().read(Path("/dev/zero"), 99)


def test_the_digest_knows_everything_but_secrets(tmp_path: Path) -> None:
    def digest(policy: str, secret: str) -> str:
        files = Files()
        for name, text in (("policy", policy), ("secret", secret)):
            (tmp_path / name).write_text(text)
            files.read(tmp_path / name, 99, secret=name == "secret")
        return files.digest

    assert digest("a", "b") != digest("c", "b")
    assert digest("a", "b") == digest("a", "c"), "or a weak secret could be guessed from it"


def test_libraries_that_want_a_path_get_one(tmp_path: Path) -> None:
    path, files = tmp_path / "a", Files()
    path.write_text("kept")
    files.read(path, 99)
    path.write_text("changed")
    with files.laid_out() as at:
        assert at(path).read_text() == "kept"
        assert at(str(path)).read_text() == "kept"
        assert at(tmp_path / "other") == tmp_path / "other"


def test_what_is_packed_comes_to_the_same_whatever_lies_on_disk(base: Path) -> None:
    path = base / "ztproxy.yaml"
    shutil.copy(GOOD, path)
    settings, policies = load_all(path)
    packed = settings.files.pack()
    shutil.rmtree(base)
    again, restored = restore(path, packed)
    assert restored.digest == policies.digest
    assert again.files.digest == settings.files.digest
    assert again.routes() == settings.routes()
    assert again.providers() == settings.providers()
    assert again.model_dump() == settings.model_dump()
