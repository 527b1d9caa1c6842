"""`ztproxy recordings` as people and programs see it."""

import json
import re
import shutil
from pathlib import Path

import pytest
from msgspec.structs import astuple
from recording_room import Room, decision, outcome, started
from typer.testing import CliRunner, Result

from ztproxy.cli.recordings import app


@pytest.fixture
def log(room: Room) -> Path:
    audit = room.audit()
    audit.session(started())
    audit.decision(decision(1, posture="healthy", posture_age=1200))
    audit.outcome(*astuple(outcome(1, sent=4096)))
    refused = {"allow": False, "decided": "default-deny", "policies": (), "path": "/tickets/2\\u001b[2J"}
    audit.decision(decision(2, code="device-posture-unhealthy", remedies=("recheck-device",), **refused))
    audit.decision(decision(3, action="POST"))
    room.sealer().step()
    return room.directory


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": "200"})


def test_list(log: Path) -> None:
    result = run("list", "--dir", log)
    assert result.exit_code == 0
    for text in ("ses_carol", "Carol", "2 permitted, 1 refused", "1 unfinished"):
        assert text in result.output
    (listed,) = json.loads(run("list", "--dir", log, "--json").output)
    assert (listed["id"], listed["permitted"], listed["open"]) == ("ses_carol", 2, 1)


def test_show(log: Path) -> None:
    result = run("show", "ses_c", "--dir", log)
    assert result.exit_code == 0
    text = re.sub(r"\s+", " ", result.output)
    for expected in (
        "Carol (User::demo:carol)",
        "dev_laptop",
        "GET support /tickets/1 permitted by support-team 200, 4.0 KiB, 5 ms",
        "refused: device-posture-unhealthy (recheck-device) 403, see 00000000",
        "POST support /tickets/3 permitted by support-team unfinished",
        "session started",
        "healthy (1 s old)",
    ):
        assert expected in text, expected
    shown = json.loads(run("show", "ses_carol", "--dir", log, "--json").output)
    assert shown["session"]["id"] == "ses_carol"
    assert [event["kind"] for event in shown["events"]] == ["session", "exchange", "exchange", "exchange"]
    assert "outcome" not in shown["events"][3] or shown["events"][3]["outcome"] is None


def test_a_reference_leads_to_its_request(log: Path) -> None:
    refused = decision(2).id
    result = run("show", refused, "--dir", log)
    assert result.exit_code == 0
    for expected in (refused, "Carol (User::demo:carol)", "GET support /tickets/2", "403", "ses_carol"):
        assert expected in result.output, expected
    assert "\x1b" not in result.output
    shown = json.loads(run("show", decision(1).id, "--dir", log, "--json").output)
    assert shown["decision"]["path"] == "/tickets/1" and shown["outcome"]["status"] == 200
    for reference, how in (
        ("f" * 32, "no recorded request has"),
        ("e" * 32, "only the first have, the others were counted"),
        ("0" * 8, "more than one recorded request"),
    ):
        unknown = run("show", reference, "--dir", log)
        assert unknown.exit_code == 1 and how in unknown.output


@pytest.mark.parametrize("width", ["20", "80"])
def test_what_is_no_terminal_gets_a_line_for_each_row(log: Path, width: str) -> None:
    result = CliRunner().invoke(app, ["list", "--dir", str(log)], env={"COLUMNS": width})
    assert [line.split()[:2] for line in result.output.splitlines() if "ses_" in line] == [
        ["ses_carol", "Carol"]
    ]
    assert "2 permitted, 1 refused" in result.output


def test_nobody_is_told(log: Path) -> None:
    result = run("show", "ses_x", "--dir", log)
    assert result.exit_code == 1
    assert "no recorded session has an id that starts with 'ses_x'" in result.output


def test_verify(log: Path) -> None:
    for arguments in (("verify", log), ("verify", "--dir", log), ("verify", log, "--key", log / "log.pub")):
        result = run(*arguments)
        assert result.exit_code == 0
        assert "ok: all 5 records of test/node are as they were sealed" in result.output
        assert ("--key" in result.output) == ("--key" not in arguments)
    result = run("verify", log, "--session", "ses_carol")
    assert "session ses_carol: 5 records, the first is record 1, the last 5" in result.output


def test_verify_names_the_record_and_fails(log: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(log, tmp_path / "copy"))
    path = copy / "log-00000001.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"status":200', b'"status":403'))
    result = run("verify", copy)
    assert result.exit_code == 1
    assert "NOT OK: 2 records of test/node verified" in result.output
    assert "record 3 altered (log-00000001.jsonl:3)" in result.output
    verdict = json.loads(run("verify", copy, "--json").output)
    assert verdict["ok"] is False
    assert verdict["problems"][0]["kind"] == "altered" and verdict["problems"][0]["record"] == 3


def test_the_configuration_names_the_directory(log: Path) -> None:
    config = log.parent / "ztproxy.yaml"
    config.write_text("state: .\nlisten: nonsense\n")
    assert run("verify", "--config", config).exit_code == 0
    assert "ses_carol" in run("list", "--config", config).output


@pytest.mark.parametrize("verb", [("list",), ("show", "x"), ("verify",)])
def test_errors_are_sentences(tmp_path: Path, verb: tuple[str, ...]) -> None:
    for arguments in (("--dir", tmp_path / "nowhere"), ("--config", tmp_path / "nowhere.yaml")):
        result = run(*verb, *arguments)
        assert result.exit_code == 1
        assert "ztproxy: " in result.output and "nowhere" in result.output
        assert "Traceback" not in result.output and result.exception.__class__ is SystemExit


def test_a_bad_key_is_told(log: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("nonsense")
    result = run("verify", log, "--key", tmp_path / "key")
    assert result.exit_code == 1 and "--key: " in result.output


def test_a_flood_is_shown_with_its_number(room: Room) -> None:
    audit = room.audit()
    for number in range(40):
        audit.decision(
            decision(
                number,
                allow=False,
                principal="Anonymous::anonymous",
                session="",
                name="",
                device="",
                policies=(),
                code="login-required",
                ip="192.0.2.7",
            )
        )
    audit.sum_up(room.now())
    room.sealer().step()
    (listed,) = json.loads(run("list", "--dir", room.directory, "--json").output)
    assert (listed["id"], listed["refused"], listed["records"]) == ("Anonymous::anonymous", 40, 12)
    shown = re.sub(r"\s+", " ", run("show", "Anonymous::", "--dir", room.directory).output)
    assert "29 alike from 192.0.2.7 refused: login-required counted since" in shown
    events = json.loads(run("show", "Anonymous::", "--dir", room.directory, "--json").output)["events"]
    assert [event["kind"] for event in events] == ["exchange"] * 10 + ["flood"] * 2
    verified = run("verify", room.directory)
    assert verified.exit_code == 0
    assert "30 refusals of strangers were counted" in verified.output
