"""`ztproxy demo`: what may be put behind it, and how problems are told."""

import pytest
from typer.testing import CliRunner

from ztproxy.cli.demo import app
from ztproxy.demo.layout import Layout


@pytest.fixture
def layouts(monkeypatch):
    """What the demo was asked to run, without running it."""
    asked = []

    async def run(layout: Layout, console: object) -> None:
        asked.append(layout)

    monkeypatch.setattr("ztproxy.demo.run.run", run)
    return asked


def test_further_applications(layouts, tmp_path):
    also = ["--also", "notes=http://127.0.0.1:8888", "--also", "lab=https://lab.example"]
    done = CliRunner().invoke(app, ["--dir", str(tmp_path), "--port", "9443", *also])
    assert done.exit_code == 0
    (layout,) = layouts
    assert layout.apps == ("support", "wiki", "status", "notes", "lab")
    assert layout.url("notes") == "https://notes.ztproxy.localhost:9443"


@pytest.mark.parametrize(
    "wrong",
    ["notes", "notes=127.0.0.1:1", "wiki=http://a", "portal=http://a", "No Name=http://a", "a=ftp://b"],
)
def test_what_is_no_application(layouts, tmp_path, wrong):
    done = CliRunner().invoke(app, ["--dir", str(tmp_path), "--also", wrong])
    assert done.exit_code == 2 and not layouts


def test_posture_takes_the_folder_before_or_after(tmp_path):
    for words in (["--dir", str(tmp_path), "posture", "stop"], ["posture", "--dir", str(tmp_path), "stop"]):
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 1
        assert str(tmp_path) in done.stderr.replace("\n", "") and "What to do: start one" in done.stderr
