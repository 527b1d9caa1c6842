"""`init` makes what `check` accepts, and `check` tells what is wrong where."""

import os
import shutil
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ztproxy.cli import check, init, policy, run, schema

ROOT = Path(__file__).parents[2]
runner = CliRunner()


@pytest.fixture
def started(tmp_path: Path) -> Path:
    done = runner.invoke(init.app, [str(tmp_path / "etc"), "--domain", "acme.example"])
    assert done.exit_code == 0, done.output
    return tmp_path / "etc" / "ztproxy.yaml"


def test_what_init_writes_is_sound(started: Path) -> None:
    done = runner.invoke(check.app, ["--config", str(started)])
    assert done.exit_code == 0, done.output
    assert f"{started}: sound" in done.output
    assert "https://portal.acme.example:8443" in done.output
    assert "5 run, all as expected" in done.output
    assert "corp.example" not in started.read_text()


def test_init_keeps_private_what_is_private(started: Path) -> None:
    private = [path for path in started.parent.rglob("*") if path.suffix == ".key" or "secrets" in path.parts]
    assert len(private) >= 3
    for path in private:
        if path.is_file():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_init_overwrites_nothing(started: Path) -> None:
    before = {path: path.read_bytes() for path in started.parent.rglob("*") if path.is_file()}
    done = runner.invoke(init.app, [str(started.parent), "--domain", "other.example"])
    assert done.exit_code == 0 and "made" not in done.output
    assert before == {path: path.read_bytes() for path in started.parent.rglob("*") if path.is_file()}


def test_init_completes_what_a_configuration_lacks(started: Path) -> None:
    (started.parent / "tls/server.pem").unlink()
    (started.parent / "tls/server.key").unlink()
    assert runner.invoke(check.app, ["--config", str(started)]).exit_code == 1
    assert runner.invoke(init.app, [str(started.parent)]).exit_code == 0
    assert runner.invoke(check.app, ["--config", str(started)]).exit_code == 0


def test_init_refuses_what_is_no_domain(tmp_path: Path) -> None:
    done = runner.invoke(init.app, [str(tmp_path / "x"), "--domain", "not a domain"])
    assert done.exit_code == 2 and not (tmp_path / "x").exists()


def test_the_example_of_the_repository_is_sound_once_completed(tmp_path: Path) -> None:
    example = tmp_path / "config"
    shutil.copytree(ROOT / "config", example, ignore=shutil.ignore_patterns("tls", "secrets", "state"))
    assert runner.invoke(init.app, [str(example)]).exit_code == 0
    done = runner.invoke(check.app, ["--config", str(example / "ztproxy.yaml")])
    assert done.exit_code == 0, done.output


def test_problems_are_told_with_place_and_remedy(started: Path) -> None:
    started.write_text(started.read_text().replace("listen:", "lissten:").replace("state: state", "state: 7"))
    done = runner.invoke(check.app, ["--config", str(started)])
    assert done.exit_code == 1
    line = started.read_text().splitlines().index("lissten: 127.0.0.1:8443") + 1
    assert f"{started}:{line}:1: lissten: unknown key 'lissten'" in done.output
    assert "remedy: did you mean 'listen'?" in done.output
    assert "expected text" in done.output
    assert "3 problems; nothing was started or changed." in done.output


def test_the_variable_names_the_configuration(started: Path) -> None:
    assert runner.invoke(check.app, [], env={"ZTPROXY_CONFIG": str(started)}).exit_code == 0


def test_run_tells_problems_instead_of_starting(started: Path) -> None:
    started.write_text(started.read_text() + "extra: 1\n")
    done = runner.invoke(run.app, ["--config", str(started)])
    assert done.exit_code == 1
    assert "unknown key 'extra'" in done.output and "Traceback" not in done.output
    assert not (started.parent / "state").exists()


def test_policy_show_prints_files_shorthands_and_what_is_built_in(started: Path) -> None:
    started.write_text(started.read_text() + '    allow: {users: ["corp:bob"], methods: [GET]}\n')
    done = runner.invoke(policy.app, ["show", "--config", str(started)])
    assert done.exit_code == 0, done.output
    for words in ('@id("intranet-staff")', "routes[0].allow", '@id("ztproxy-portal")', "// policy set "):
        assert words in done.output


def test_schema_prints_json() -> None:
    import json

    done = runner.invoke(schema.app, [])
    assert json.loads(done.output)["$schema"].endswith("2020-12/schema")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_configuration_is_a_problem(started: Path) -> None:
    started.chmod(0)
    done = runner.invoke(check.app, ["--config", str(started)])
    assert done.exit_code == 1 and "permission denied" in done.output
