"""Autobahn's fuzzing client against an echo server, directly and through ztproxy: the verdicts must agree.

    python -m bench.autobahn [--cases '1.*,7.*'] [--out bench/autobahn.json]

The test suite is a program for Python 2.7, which is looked for (or named by ZTPROXY_PYTHON2); the suite comes
from PyPI into `.venv-autobahn`. A tool for one's own machine: it takes minutes and no target runs it. The
fuzzing client knows neither TLS names nor cookies; a forwarder before ztproxy adds both to the handshake, and
passes every byte after it on as it came.

OK and NON-STRICT are both passes; which of them it is depends on whether an echo got out before the server
dropped the connection, so on how bytes that were sent one by one arrived. Such cases are told.
"""

import argparse
import asyncio
import json
import os
import shutil
import ssl
import subprocess
import sys
from collections import Counter as Tally
from pathlib import Path

from bench.ground import COOKIE, HOST, Ground, Missing
from bench.machine import LOAD_CORE, free_port
from bench.products.ztproxy import Variant, Ztproxy

SITE = Path(".venv-autobahn").resolve()
PASSES = ("OK", "NON-STRICT")
VERDICTS = ("behavior", "behaviorClose", "remoteCloseCode")


#: What was found of each case: VERDICTS in this order.
Verdicts = dict[str, list[object]]


class Forwarder:
    """Listens in the clear; speaks TLS to ztproxy; puts Host, Origin and cookie into the first head."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._tls = ssl._create_unverified_context()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            there, back = await asyncio.open_connection(
                "127.0.0.1", self._port, ssl=self._tls, server_hostname=HOST
            )
        except (OSError, asyncio.IncompleteReadError):
            writer.close()
            return
        back.write(self._dressed(head))
        await asyncio.gather(_pump(reader, back), _pump(there, writer))

    def _dressed(self, head: bytes) -> bytes:
        first, *fields = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
        kept = [field for field in fields if not field.lower().startswith((b"host:", b"origin:"))]
        place = f"{HOST}:{self._port}"
        ours = [f"Host: {place}", f"Origin: https://{place}", f"Cookie: __Host-ztproxy={COOKIE}"]
        return b"\r\n".join([first, *(line.encode() for line in ours), *kept]) + b"\r\n\r\n"


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


def python2() -> str:
    """Return a Python 2.7. Raises Missing."""
    versions = sorted(Path.home().glob(".pyenv/versions/2.7*/bin/python2.7"))
    named = os.environ.get("ZTPROXY_PYTHON2") or (str(versions[-1]) if versions else "")
    found = named or shutil.which("python2.7")
    if not found:
        raise Missing("there is no Python 2.7 (name one by ZTPROXY_PYTHON2)")
    return found


def suite() -> list[str]:
    """Return how to call the test suite; fetch it once."""
    python = python2()
    if not (SITE / "autobahntestsuite").is_dir():
        print(f"Fetching autobahntestsuite into {SITE} (once)", flush=True)
        subprocess.run(
            [python, "-m", "pip", "install", "-q", "--target", SITE, "autobahntestsuite"], check=True
        )
    start = f"import site; site.addsitedir({str(SITE)!r}); from autobahntestsuite import wstest; wstest.run()"
    return [python, "-W", "ignore", "-c", start]


async def verdicts(ground: Ground, wstest: list[str], cases: list[str]) -> dict[str, Verdicts]:
    """Run the cases; return the verdicts of each agent by case."""
    echo, front = free_port(), free_port()
    ground.spawn("echo", [*wstest, "-m", "echoserver", "-w", f"ws://127.0.0.1:{echo}"], core=LOAD_CORE)
    host = f"host_header: 127.0.0.1:{echo}"  # the echo server looks at the port
    variant = Variant(routes=1, upstream=echo, probe=False, route=host)
    product = await asyncio.to_thread(Ztproxy, ground, variant)
    forwarder = await asyncio.start_server(Forwarder(product.port).serve, "127.0.0.1", front)
    spec, reports = ground.root / "spec.json", ground.root / "reports"
    servers = [
        {"agent": "direct", "url": f"ws://127.0.0.1:{echo}"},
        {"agent": "ztproxy", "url": f"ws://127.0.0.1:{front}/app0/"},
    ]
    spec.write_text(
        json.dumps({"outdir": str(reports), "servers": servers, "cases": cases, "exclude-cases": []})
    )
    async with forwarder:
        process = await asyncio.create_subprocess_exec(
            *wstest, "-m", "fuzzingclient", "-s", str(spec), stdout=sys.stderr
        )
        await process.wait()
    index = json.loads((reports / "index.json").read_text())
    return {
        agent: {case: [seen.get(word) for word in VERDICTS] for case, seen in done.items()}
        for agent, done in index.items()
    }


def differences(direct: Verdicts, through: Verdicts) -> tuple[list[str], list[str]]:
    """Return the cases whose verdicts differ, and those that pass both ways but not equally strictly."""
    unequal = [case for case in sorted({*direct, *through}) if direct.get(case) != through.get(case)]
    timing = [
        case
        for case in unequal
        if case in direct
        and case in through
        and direct[case][1:] == through[case][1:]
        and {direct[case][0], through[case][0]} == set(PASSES)
    ]
    return [case for case in unequal if case not in timing], timing


def main() -> None:
    """Run, compare verdict by verdict, and fail when one differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cases", default="*")
    parser.add_argument("--out", type=Path, default=Path("bench/autobahn.json"))
    options = parser.parse_args()
    try:
        wstest = suite()
    except Missing as error:
        sys.exit(str(error))
    with Ground() as ground:
        seen = asyncio.run(verdicts(ground, wstest, options.cases.split(",")))
    options.out.write_text(json.dumps(seen, indent=1, sort_keys=True) + "\n")
    direct, through = seen["direct"], seen["ztproxy"]
    other, timing = differences(direct, through)
    for case in (*other, *timing):
        note = "" if case in other else " (timing)"
        print(f"{case}: directly {direct.get(case)}, through ztproxy {through.get(case)}{note}")
    for agent, done in seen.items():
        print(f"{agent}: {len(done)} cases: {dict(Tally(str(verdict[0]) for verdict in done.values()))}")
    same = len(direct) - len(other) - len(timing)
    print(
        f"{same} of {len(direct)} verdicts are the same, {len(timing)} differ by timing, {len(other)} differ"
    )
    if other or not direct:
        sys.exit(1)


if __name__ == "__main__":
    main()
