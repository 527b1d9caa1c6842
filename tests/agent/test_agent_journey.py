"""The agent against a portal over real TLS: enrol, report, change, outage, renewal, revocation."""

import asyncio
import json
import os
import signal
import stat
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ztproxy.administrator.issue import DEVICES, load_authority
from ztproxy.agent import program
from ztproxy.agent.program import AgentError
from ztproxy.agent.state import Folder, Status


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "device"


@pytest.fixture
def posture_file(tmp_path: Path) -> Path:
    path = tmp_path / "posture.json"
    say(path, "pass")
    return path


@pytest.fixture
async def enrolled(
    portal: Any, folder: Path, free_port: Callable[[], int]
) -> AsyncIterator[program.Identity]:
    code = await portal.devices.create_code("laptop", "corp:carol")
    yield await program.enrol(portal.origin, code, folder, ca=portal.ca, port=free_port())


def say(path: Path, result: str) -> None:
    path.write_text(json.dumps({"checks": {"disk_encrypted": result, "firewall": "pass"}}))


async def until(what: Callable[[], bool], seconds: float = 5.0) -> float:
    began = time.monotonic()
    while not what():
        assert time.monotonic() - began < seconds, "it did not happen in time"
        await asyncio.sleep(0.02)
    return time.monotonic() - began


async def test_enrolment_writes_a_private_folder(portal: Any, folder: Path, enrolled: Any) -> None:
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for name in ("device.key", "device.json", "seq"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    assert enrolled.origins == (portal.origin,)
    device = (await portal.devices.list())[0]
    assert (device.id, device.name, device.owner) == (enrolled.id, "laptop", "corp:carol")
    assert program.status(folder).status == Status()
    with pytest.raises(AgentError, match="enrolled here already"):
        await program.enrol(portal.origin, "0000-0000-0000", folder, ca=portal.ca)


async def test_enrolment_that_fails_leaves_nothing(portal: Any, folder: Path) -> None:
    with pytest.raises(AgentError, match="not valid"):
        await program.enrol(portal.origin, "0000-0000-0000", folder, ca=portal.ca)
    with pytest.raises(AgentError, match="certificate"):  # without --ca the portal is a stranger
        await program.enrol(portal.origin, "0000-0000-0000", folder)
    with pytest.raises(AgentError, match=r"missing\.pem"):
        await program.enrol(portal.origin, "0000-0000-0000", folder, ca=folder / "missing.pem")
    assert not folder.exists()
    with pytest.raises(AgentError, match="no device is enrolled"):
        program.status(folder)


async def test_reports_arrive_with_the_device_certificate(
    portal: Any, folder: Path, posture_file: Path, enrolled: Any
) -> None:
    async with program.serve(folder, posture_file=posture_file, interval=0.3):
        await until(lambda: program.status(folder).status.seq >= 3)
    posture = await portal.devices.posture(enrolled.id)
    assert posture.healthy and posture.source == "posture-file" and posture.seq >= 3
    assert portal.shown[-1] == f"spiffe://corp.example/device/{enrolled.id}"
    assert program.status(folder).status.posture_file == posture_file.stat().st_mtime_ns


async def test_a_change_is_reported_at_once(
    portal: Any, folder: Path, posture_file: Path, enrolled: Any
) -> None:
    async with program.serve(folder, posture_file=posture_file, interval=60):
        await until(lambda: program.status(folder).status.healthy)
        say(posture_file, "fail")
        took = await until(lambda: program.status(folder).status.checks.get("disk_encrypted") == "fail")
        assert took < 1.0
        assert not (await portal.devices.posture(enrolled.id)).healthy
        posture_file.unlink()
        await until(lambda: "posture_file" in program.status(folder).status.checks)
        assert not (await portal.devices.posture(enrolled.id)).healthy
        say(posture_file, "pass")
        await until(lambda: program.status(folder).status.healthy)


async def test_an_outage_is_survived_and_counted_on(
    portal: Any, folder: Path, posture_file: Path, enrolled: Any
) -> None:
    async with program.serve(folder, posture_file=posture_file, interval=0.5):
        await until(lambda: program.status(folder).status.accepted)
        await portal.stop()
        await until(lambda: program.status(folder).status.error == "portal-unreachable")
        await portal.start()
        await until(lambda: program.status(folder).status.accepted)
    before = program.status(folder).status.seq
    async with program.serve(folder, posture_file=posture_file, interval=60):
        await until(lambda: program.status(folder).status.seq > before)


async def test_a_folder_restored_from_a_copy_finds_its_way(
    portal: Any, folder: Path, posture_file: Path, enrolled: Any
) -> None:
    old = (folder / "seq").read_bytes()
    async with program.serve(folder, posture_file=posture_file, interval=0.2):
        await until(lambda: program.status(folder).status.seq >= 3)
    (folder / "seq").write_bytes(old)
    async with program.serve(folder, posture_file=posture_file, interval=1):
        await until(lambda: program.status(folder).status.seq > 1_000_000)


async def test_a_certificate_is_renewed_before_and_after_its_end(
    portal: Any, folder: Path, posture_file: Path, enrolled: Any
) -> None:
    await portal.stop()
    portal.devices._issuer = load_authority(
        portal.folder,
        DEVICES,
        trust_domain="corp.example",
        lifetime=1000,  # so short that it is due, and soon over, all the time
        clock=portal.clock,
        entropy=os.urandom,
    )
    await portal.start()
    keep = Folder(folder)
    begins, ends = keep.certificate_term()
    assert ends - begins == 3_600_000 + 60_000
    keep.write_certificate(portal.devices._issuer.issue(keep.signer().key.public_key(), enrolled.id).pem)
    await asyncio.sleep(1.1)
    over = keep.certificate_term()[1]
    assert over < time.time() * 1000
    portal.shown.clear()
    async with program.serve(folder, posture_file=posture_file, interval=0.2):
        await until(lambda: program.status(folder).status.seq >= 2)
    assert portal.shown[0] is None  # one that is over is not shown, and renewal works all the same
    assert keep.certificate_term()[1] > over


async def test_a_revoked_device_is_told_so(
    portal: Any, folder: Path, posture_file: Path, enrolled: Any
) -> None:
    async with program.serve(folder, posture_file=posture_file, interval=0.2):
        await until(lambda: program.status(folder).status.accepted)
        await portal.devices.revoke(enrolled.id, "dana")
        await until(lambda: program.status(folder).status.error == "device-revoked")


async def test_a_proof_made_on_loopback_is_believed_by_the_portal(
    portal: Any, folder: Path, posture_file: Path, enrolled: Any
) -> None:
    nonce = "n" * 43
    async with program.serve(folder, posture_file=posture_file), aiohttp.ClientSession() as browser:
        response = await browser.post(
            f"http://127.0.0.1:{enrolled.port}/v1/prove",
            json={"nonce": nonce, "audience": portal.origin},
            headers={"Origin": portal.origin},
        )
        proof = (await response.json())["proof"]
    assert (await portal.devices.verify_proof(proof, portal.origin, nonce)).id == enrolled.id


async def test_a_taken_port_is_said(folder: Path, posture_file: Path, enrolled: Any) -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", enrolled.port)
    async with server:
        with pytest.raises(AgentError, match=str(enrolled.port)):
            async with program.serve(folder, posture_file=posture_file):
                pass


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_cleanly(
    folder: Path, posture_file: Path, enrolled: Any, sent: signal.Signals
) -> None:
    script = (
        "import asyncio, sys; from pathlib import Path; from ztproxy.agent import program;"
        "asyncio.run(program.run(Path(sys.argv[1]), posture_file=Path(sys.argv[2])))"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "error",
        "-c",
        script,
        str(folder),
        str(posture_file),
        stderr=asyncio.subprocess.PIPE,
    )
    await until(lambda: program.status(folder).status.accepted, 15)
    process.send_signal(sent)
    _, errors = await asyncio.wait_for(process.communicate(), 5)
    assert (process.returncode, errors) == (0, b"")


@pytest.mark.parametrize(
    "url",
    [
        "http://p.example",
        "p.example",
        "https://",
        "https://u@p.example",
        "https://p.example/x",
        "https://p:x",
    ],
)
async def test_addresses_that_are_refused(folder: Path, url: str) -> None:
    with pytest.raises(AgentError):
        await program.enrol(url, "0000-0000-0000", folder)


async def test_a_portal_of_another_name_is_refused(portal: Any, folder: Path) -> None:
    portal.devices.origin = "https://portal.example.localhost"  # what it calls itself
    code = await portal.devices.create_code("laptop")
    with pytest.raises(AgentError, match="calls itself"):
        await program.enrol(portal.origin, code, folder, ca=portal.ca)
    assert not folder.exists()
