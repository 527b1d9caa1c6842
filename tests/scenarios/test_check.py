"""`ztproxy check`: the demo's own configuration is sound, and ten ways to break it are each named."""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from ztproxy.demo import configuration, people, pki, ports
from ztproxy.demo.layout import Layout
from ztproxy.demo.provider import Provider


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """The demo's folder as it is before anything is started."""
    layout = Layout(tmp_path_factory.mktemp("check"), 8443)
    pki.prepare(layout)
    people.prepare(layout)
    chosen = ports.prepare(layout)
    provider = Provider(layout, chosen.provider)
    provider.configure()
    configuration.prepare(layout, chosen, provider, lambda app: f"http://127.0.0.1:{getattr(chosen, app)}")
    return layout.root


@pytest.fixture
def folder(sound, tmp_path):
    """A copy to break."""
    return shutil.copytree(sound, tmp_path / "copy")


@dataclass(frozen=True)
class Broken:
    """A change to the configuration (or the policies) and words that must be in the report."""

    name: str
    old: str
    new: str
    says: str
    file: str = "ztproxy.yaml"


BROKEN = [
    Broken("unknown key", "workers: 2", "workerz: 2", "workerz"),
    Broken("wrong type", "workers: 2", "workers: many", "workers"),
    Broken("no unit", "idle: 30m", "idle: 30", "duration|30"),
    Broken("secret in the file", "file:provider/client-secret", "hunter2", "env:|file:"),
    Broken("no such file", "cert: tls/server.pem", "cert: tls/servers.pem", "servers.pem"),
    Broken("upstream without scheme", "to: http://127.0.0.1", "to: 127.0.0.1", r"routes\[0\].to"),
    Broken("two routes, one host", "from: https://wiki.", "from: https://support.", "support"),
    Broken("no certificate for a host", "from: https://wiki.", "from: https://elsewhere.", "elsewhere"),
    Broken("not YAML", "sessions: {idle: 30m,", "sessions: {idle: 30m", "sessions|YAML|flow|,"),
    Broken("algorithm none", "algorithms: [RS256]", "algorithms: [none]", "none"),
    Broken(
        "unknown route in a policy", 'Route::"support"', 'Route::"suport"', "suport", "policies/demo.cedar"
    ),
    Broken("not Cedar", "resource in App", "resource on App", "", "policies/demo.cedar"),
    Broken("unknown attribute", "device.proof", "device.prof", "prof", "policies/demo.cedar"),
    Broken("a test of the policies fails", "<=", ">=", "", "policies/demo.cedar"),
]


def check(folder: Path):
    return ztproxy_check(folder / "ztproxy.yaml")


def ztproxy_check(file: Path):
    import subprocess
    import sys

    command = [sys.executable, "-m", "ztproxy", "check", "--config", str(file)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_demo_itself_is_sound(folder):
    done = check(folder)
    assert done.returncode == 0, done.stderr
    assert "sound" in done.stdout


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.name.replace(" ", "-"))
def test_each_is_named_with_its_line_and_remedy(folder, broken):
    path = folder / broken.file
    text = path.read_text()
    assert broken.old in text
    path.write_text(text.replace(broken.old, broken.new, 1))
    lines = {number for number, line in enumerate(path.read_text().splitlines(), 1) if broken.new in line}
    done = check(folder)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    named = [
        (Path(found[1]).name, int(found[2]))
        for found in re.finditer(r"^(\S+):(\d+):\d+: ", done.stderr, re.M)
    ]
    if broken.name == "a test of the policies fails":
        assert any(name == "tests.yaml" for name, _ in named), done.stderr
    else:
        # A policy is named by the line of its first word; YAML that breaks off, by where that shows.
        near = {line + step for line in lines for step in range(-12 if path.suffix == ".cedar" else 0, 2)}
        assert any(name == path.name and line in near for name, line in named), done.stderr
    assert re.search(broken.says, done.stderr), done.stderr
    assert "remedy:" in done.stderr
    assert "hunter2" not in done.stderr


def test_all_at_once(folder):
    path = folder / "ztproxy.yaml"
    text = path.read_text()
    for old, new in (
        ("workers: 2", "workerz: 2"),
        ("idle: 30m", "idle: soon"),
        ("kind: workload", "kind: robot"),
    ):
        text = text.replace(old, new)
    path.write_text(text)
    done = check(folder)
    assert done.returncode == 1
    assert all(word in done.stderr for word in ("workerz", "idle", "kind", "3 problems"))
