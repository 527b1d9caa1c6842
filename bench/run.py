"""All measurements, or some: python -m bench.run [--only requests,handshakes] [--rounds 6] [--seconds 2]

Prints each part as it is done and writes `bench/results.json` and `bench/results.md` after each, so that what
is done is kept. Exits with 1 when a part failed.
"""

import argparse
import json
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from bench import handshakes, machine, memory, report, scale, streams, throughput, websockets
from bench.ground import Ground, Missing, program

PARTS: dict[str, Callable[..., dict[str, object]]] = {
    "requests": throughput.few,
    "connections": throughput.many,
    "overhead": throughput.overhead,
    "handshakes": handshakes.measure,
    "streams": streams.measure,
    "websockets": websockets.measure,
    "memory": memory.measure,
    "workers": scale.workers,
    "scale": scale.sizes,
}
#: Some parts swing less or take longer: fewer rounds do.
ROUNDS = {
    "connections": 4,
    "handshakes": 4,
    "streams": 3,
    "websockets": 4,
    "memory": 2,
    "workers": 4,
    "scale": 5,
}
VERSIONS = {
    "nginx": ["-v"],
    "haproxy": ["-v"],
    "caddy": ["version"],
    "traefik": ["version"],
    "envoy": ["--version"],
    "wrk": ["-v"],
    "curl": ["--version"],
}


def main() -> None:
    """Run the parts, each on a ground of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", default="", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=int, default=2, help="of one turn")
    parser.add_argument("--out", type=Path, default=Path("bench/results.json"))
    options = parser.parse_args()
    names = [name for name in options.only.split(",") if name] or list(PARTS)
    if unknown := [name for name in names if name not in PARTS]:
        parser.error(f"unknown part {unknown[0]}: there are {', '.join(PARTS)}")
    results: dict[str, object] = {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "command": " ".join(["python -m bench.run", *sys.argv[1:]]),
        "machine": {**machine.describe(), "python": sys.version.split()[0], **_versions()},
        "parts": {},
    }
    failed = [name for name in names if not _part(name, options, results)]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def _part(name: str, options: argparse.Namespace, results: dict[str, object]) -> bool:
    begin = time.monotonic()
    parts = results["parts"]
    assert isinstance(parts, dict)
    try:
        with Ground() as ground:
            rounds = min(options.rounds, ROUNDS.get(name, options.rounds))
            parts[name] = PARTS[name](ground, rounds=rounds, seconds=options.seconds)
    except Exception as error:  # noqa: BLE001 - the other parts are measured all the same
        traceback.print_exc()
        parts[name] = {"failed": str(error)[-500:]}
    parts[name]["seconds"] = round(time.monotonic() - begin)
    print(report.render(name, parts[name]), flush=True)
    options.out.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    text = [f"# Measured {results['date']} by `{results['command']}`", "", f"{results['machine']}", ""]
    text += [report.render(part, result) for part, result in parts.items()]
    options.out.with_suffix(".md").write_text("\n".join(text))
    return "failed" not in parts[name]


def _versions() -> dict[str, str]:
    found = {}
    for name, how in VERSIONS.items():
        try:
            said = subprocess.run([program(name), *how], capture_output=True, text=True, check=False)
        except Missing:
            continue
        lines = (said.stdout + said.stderr).strip().splitlines()
        found[name] = next((line for line in lines if any(map(str.isdigit, line))), "")[:80]
    return found


if __name__ == "__main__":
    main()
