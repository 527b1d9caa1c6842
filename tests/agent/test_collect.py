"""The checks of this device, on made-up roots."""

import os
import shutil
from pathlib import Path

import pytest

from ztproxy.agent import collect, posture_file
from ztproxy.crypto.posture_document import Observation

NOW = 1_800_000_000_000


def put(root: Path, name: str, content: str | bytes = "") -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def mounted(root: Path, device: str) -> None:
    put(
        root,
        "proc/self/mountinfo",
        f"22 1 {device} / / rw - ext4 /dev/x rw\n30 22 0:5 / /proc rw - proc proc rw\n",
    )


def disk(root: Path) -> str:
    return collect.collect(NOW, root)["disk_encrypted"].result


def test_a_plain_disk_is_not_encrypted(tmp_path: Path) -> None:
    mounted(tmp_path, "8:1")
    put(tmp_path, "sys/dev/block/8:1/uevent")
    assert disk(tmp_path) == "fail"


def test_luks_below_the_root_is(tmp_path: Path) -> None:
    mounted(tmp_path, "254:0")
    put(tmp_path, "sys/dev/block/254:0/dm/uuid", "CRYPT-LUKS2-0123-root\n")
    assert disk(tmp_path) == "pass"


def test_lvm_on_luks_is_and_on_one_plain_disk_is_not(tmp_path: Path) -> None:
    mounted(tmp_path, "254:1")
    device = "sys/dev/block/254:1"
    put(tmp_path, f"{device}/dm/uuid", "LVM-abc")
    put(tmp_path, f"{device}/slaves/dm-0/dm/uuid", "CRYPT-LUKS2-0123-x")
    assert disk(tmp_path) == "pass"
    put(tmp_path, f"{device}/slaves/sdb1/uevent")
    assert disk(tmp_path) == "fail"


@pytest.mark.parametrize("device", ["0:43", "8:9"])
def test_what_can_not_be_seen_is_unknown(tmp_path: Path, device: str) -> None:
    mounted(tmp_path, device)
    assert disk(tmp_path) == "unknown"


def test_an_empty_root_passes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    found = collect.collect(NOW, tmp_path)
    assert set(found) == set(collect.CHECKS)
    assert {check.result for check in found.values()} == {"unknown"}
    assert {check.observed_at for check in found.values()} == {NOW // 1000}


def test_this_machine_is_looked_at_without_an_error() -> None:
    found = collect.collect(NOW)
    assert {check.result for check in found.values()} <= {"pass", "fail", "unknown"}
    assert collect.os_name()


@pytest.mark.parametrize(
    ("value", "result"),
    [(b"\x06\0\0\0\x01", "pass"), (b"\x06\0\0\0\0", "fail"), (b"\x01", "unknown"), (b"", "unknown")],
)
def test_secure_boot(tmp_path: Path, value: bytes, result: str) -> None:
    put(tmp_path, collect._SECURE_BOOT, value)
    assert collect.secure_boot(tmp_path, NOW) == result


def test_updates_age(tmp_path: Path) -> None:
    path = put(tmp_path, "var/lib/dpkg/status")
    os.utime(path, (NOW / 1000 - 86400 * 29,) * 2)
    assert collect.os_current(tmp_path, NOW) == "pass"
    os.utime(path, (NOW / 1000 - 86400 * 31,) * 2)
    assert collect.os_current(tmp_path, NOW) == "fail"


def test_firewalls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect, "_ask", lambda *_: None)
    assert collect.firewall(tmp_path, NOW) == "unknown"
    put(tmp_path, "etc/ufw/ufw.conf", "# x\nENABLED=yes\n")
    assert collect.firewall(tmp_path, NOW) == "pass"


@pytest.mark.parametrize(
    ("entries", "result"),
    [
        ("", "fail"),
        ('{"chain":{"table":"f","name":"in","hook":"input","policy":"drop"}}', "pass"),
        ('{"chain":{"table":"f","name":"in","hook":"input","policy":"accept"}}', "fail"),
        (
            '{"chain":{"table":"f","name":"in","hook":"input","policy":"accept"}},{"rule":{"table":"f","chain":"in"}}',
            "pass",
        ),
        ('{"chain":{"table":"f","name":"out","hook":"output","policy":"drop"}}', "fail"),
    ],
)
def test_nftables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entries: str, result: str) -> None:
    monkeypatch.setattr(collect, "_ask", lambda *_: f'{{"nftables":[{entries}]}}')
    assert collect.collect(NOW, tmp_path)["firewall"].result == result


def test_os_name(tmp_path: Path) -> None:
    put(tmp_path, "etc/os-release", 'ID=debian\nPRETTY_NAME="Debian GNU/Linux 12"\n')
    assert collect.os_name(tmp_path) == "Debian GNU/Linux 12"
    put(tmp_path, "etc/os-release", 'PRETTY_NAME="unfinished\n')
    assert collect.os_name(tmp_path) == ""


# ---------------------------------------------------------------------- the posture file


def told(path: Path, content: str) -> dict[str, Observation]:
    path.write_text(content)
    return posture_file.read(path, NOW)


def test_a_posture_file(tmp_path: Path) -> None:
    content = """{"checks": {"a": "pass", "b": {"result": "fail", "observed_at": 5},
                             "c": {"result": "pass", "observed_at": null}, "d": 1}}"""
    assert told(tmp_path / "p", content) == {
        "a": Observation("pass", NOW // 1000),
        "b": Observation("fail", 5),
        "c": Observation("pass", None),
        "d": Observation("unknown", NOW // 1000),
    }


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"checks":{}}',
        '{"checks":[]}',
        '{"checks":{"A B":"pass"}}',
        '{"checks":{"a":"pass","a":"fail"}}',
    ],
)
def test_a_posture_file_that_can_not_be_used_is_unknown(tmp_path: Path, content: str) -> None:
    assert told(tmp_path / "p", content) == {posture_file.UNUSABLE: Observation("unknown", NOW // 1000)}


def test_a_missing_large_or_open_posture_file_is_unknown(tmp_path: Path) -> None:
    path = tmp_path / "p"
    assert posture_file.UNUSABLE in posture_file.read(path, NOW)
    assert "a" in told(path, '{"checks":{"a":"pass"}}')
    assert posture_file.UNUSABLE in told(path, '{"checks":{"a":"pass"}}' + " " * 65536)
    path.write_text('{"checks":{"a":"pass"}}')
    path.chmod(0o666)
    assert posture_file.UNUSABLE in posture_file.read(path, NOW)


def test_every_change_of_the_file_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "p"
    nothing = posture_file.look(path)
    path.write_text("1")
    first = posture_file.look(path)
    path.write_text("22")
    assert len({nothing, first, posture_file.look(path)}) == 3
