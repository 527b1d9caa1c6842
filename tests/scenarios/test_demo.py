"""The demo as a program: what it writes, what it refuses, and that nothing of it is left behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_what_it_tells_programs(demo):
    facts = demo.facts
    assert facts.keys() == {
        *("ready", "portal", "ca", "apps", "people", "device", "workload", "config", "metrics", "pid")
    }
    assert facts["ready"] is True and facts["pid"] == demo.process.pid
    assert {"support", "wiki", "status"} <= facts["apps"].keys()
    assert all(app.keys() == {"url", "upstream"} for app in facts["apps"].values())
    roles = {name: person["role"] for name, person in facts["people"].items()}
    assert roles == {"carol": "contractor", "adam": "administrator", "rita": "reviewer"}
    assert all(person.keys() == {"username", "password", "role"} for person in facts["people"].values())
    assert facts["workload"].keys() == {"id", "cert", "key", "app"}
    assert facts["device"].keys() == {"id", "cert", "key"}
    named = [
        facts["ca"],
        facts["config"],
        *(facts[one][file] for one in ("device", "workload") for file in ("cert", "key")),
    ]
    assert all(Path(file).is_file() for file in named)
    assert (demo.root / "demo.json").stat().st_mode & 0o077 == 0


def test_its_configuration_is_sound(demo):
    assert "sound" in demo.cli("check", "--config", demo.facts["config"]).stdout


def test_its_metrics_are_read(demo):
    done = subprocess.run(
        ["curl", "--silent", "--fail", demo.facts["metrics"]], capture_output=True, check=True
    )
    assert b"ztproxy_" in done.stdout


def test_no_secret_is_in_a_log(demo):
    secrets = [person["password"] for person in demo.facts["people"].values()]
    secrets.append((demo.root / "provider" / "client-secret").read_text())
    text = demo.logs(lines=100_000)
    assert not [secret for secret in secrets if secret in text]


def start(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ztproxy", "demo", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_used_port_is_a_clear_error(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = start("--dir", str(tmp_path / "demo"), "--port", str(port))
    assert done.returncode == 1
    assert f"Port {port}" in done.stderr and "--port" in done.stderr and "Traceback" not in done.stderr


def test_one_demo_in_a_folder(demo, free_port):
    done = start("--dir", str(demo.root), "--port", str(free_port()))
    assert done.returncode == 1 and "A demo is running" in done.stderr
    assert json.loads((demo.root / "demo.json").read_text()) == demo.facts


def test_posture_of_no_demo(tmp_path):
    done = start("posture", "--dir", str(tmp_path), "healthy")
    assert done.returncode == 1 and "No demo is running" in done.stderr


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda how: how.name)
def test_nothing_is_left_however_it_ends(tmp_path_factory, free_port, descendants, how):
    """Started by `make` in a folder of its own; the second and third start go on in it."""
    root = tmp_path_factory.getbasetemp() / "again"
    root.mkdir(mode=0o700, exist_ok=True)
    (root / "demo.json").write_text('{"ready": true, "pid": 0}')  # what a killed one leaves behind
    command = ["make", "--no-print-directory", "demo", f"DIR={root}", f"PORT={free_port()}"]
    with open(tmp_path_factory.getbasetemp() / "make.log", "ab") as log:
        make = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
    try:
        facts = wait_for(root / "demo.json", make)
        below = [make.pid, *(pid for pid, _ in descendants(make.pid))]
        assert facts["pid"] in below and len(below) >= 8
        if how == signal.SIGINT:
            os.killpg(make.pid, how)  # what a terminal does on Ctrl-C
        else:
            os.kill(facts["pid"], how)
        make.wait(45)
        deadline = time.monotonic() + 30
        while alive := [pid for pid in below if os.path.exists(f"/proc/{pid}")]:
            assert time.monotonic() < deadline, alive
            time.sleep(0.1)
        assert how == signal.SIGKILL or not (root / "demo.json").exists()
    finally:
        if make.poll() is None:
            os.killpg(make.pid, signal.SIGKILL)


def wait_for(file: Path, make: subprocess.Popen[bytes]) -> dict:
    deadline = time.monotonic() + 90
    while not (facts := read(file)).get("pid"):
        assert make.poll() is None and time.monotonic() < deadline, "the demo did not start"
        time.sleep(0.1)
    return facts


def read(file: Path) -> dict:
    try:
        return json.loads(file.read_text())
    except FileNotFoundError:
        return {}
