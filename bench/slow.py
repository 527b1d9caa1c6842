"""Another client's latency while slowhttptest attacks, in its four modes: python -m bench.slow

ztproxy runs with its default limits. The attacker comes from 127.0.0.1 and asks for a big file; the other
client from 127.0.0.2, over one connection that it keeps and over fresh ones. Both are signed in. Each mode is
measured against a quiet time just before it. Exits with 1 when a p99 under attack is twice its quiet value or
more. Loopback only, bounded in time and connections. Needs slowhttptest, nginx and a C compiler.

slowhttptest sends no server name, and ztproxy ends such connections in the handshake. So that the attack gets
as far as HTTP, a small library adds the name; `--nameless` leaves it out.
"""

import argparse
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.ground import COOKIE, HOST, Ground, program
from bench.machine import LOAD_CORE
from bench.products.ztproxy import Variant, Ztproxy, cookies

SMALL, BIG = "/app0/small", "/app0/big"
BIG_SIZE = 8 << 20
FILES = """
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{ root {root}; }}
    location = /app0/ {{ return 200 "here"; }}
  }}
"""
OTHER = "127.0.0.2"
PAUSE = 0.004  # seconds between requests of the other client
FRESH_EACH = 16  # every so manieth request comes over a fresh connection

SHIM = """
#define _GNU_SOURCE
#include <dlfcn.h>
long SSL_ctrl(void *, int, long, void *);
void *SSL_new(void *context) {
  void *(*make)(void *) = (void *(*)(void *)) dlsym(RTLD_NEXT, "SSL_new");
  void *ssl = make(context);
  if (ssl) SSL_ctrl(ssl, 55, 0, "localhost"); /* SSL_set_tlsext_host_name */
  return ssl;
}
"""

#: What each mode asks for, besides address, number and length.
MODES = {
    "slowloris": ["-H", "-i", "2", "-x", "24"],
    "slow body": ["-B", "-i", "2", "-s", "8192", "-x", "10"],
    "slow read": ["-X", "-w", "128", "-y", "512", "-n", "2", "-z", "8", "-k", "3"],
    "range": ["-R", "-a", "5", "-b", "2000"],
}


@dataclass(frozen=True)
class Times:
    """Milliseconds of the other client."""

    kept: list[float]
    fresh: list[float]


class Client:
    """The other client."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._tls = ssl._create_unverified_context()
        self._request = (
            f"GET {SMALL} HTTP/1.1\r\nHost: {HOST}:{port}\r\nCookie: __Host-ztproxy={COOKIE}\r\n\r\n"
        ).encode()

    def ask(self, until: Callable[[], bool]) -> Times:
        """Ask again and again until told to stop. Raises OSError when it is not served."""
        times = Times([], [])
        kept = self._connect()
        with kept:
            while not until():
                times.kept.append(_timed(lambda: self._exchange(kept)))
                time.sleep(PAUSE)
                if len(times.kept) % FRESH_EACH == 0:
                    times.fresh.append(_timed(self._once))
        return times

    def _once(self) -> None:
        with self._connect() as fresh:
            self._exchange(fresh)

    def _connect(self) -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", self._port), 10, source_address=(OTHER, 0))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._tls.wrap_socket(plain, server_hostname=HOST)

    def _exchange(self, sock: ssl.SSLSocket) -> None:
        sock.sendall(self._request)
        answer = b""
        while not answer.endswith(b"x" * 16):
            piece = sock.recv(65536)
            if not piece:
                raise ConnectionError(f"closed after {answer[:60]!r}")
            answer += piece
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise ConnectionError(f"refused: {answer[:60]!r}")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=int, default=15, help="of each attack, at most 30")
    parser.add_argument("--connections", type=int, default=400, help="of the attacker, at most 1000")
    parser.add_argument("--nameless", action="store_true", help="attack without a server name")
    options = parser.parse_args()
    seconds, connections = min(options.seconds, 30), min(options.connections, 1000)
    attacker = program("slowhttptest")
    late = False
    with Ground() as ground:
        product = Ztproxy(ground, Variant(routes=1, sessions=2, limits="", upstream=_files(ground)))
        env = dict(os.environ) if options.nameless else {**os.environ, "LD_PRELOAD": _shim(ground.root)}
        client = Client(product.port)
        client.ask(_after(1.0))
        print(f"{'ms':11}{'quiet p50':>10}{'p99':>8}{'attack p50':>12}{'p99':>8}{'times':>7}  which")
        for mode, words in MODES.items():
            quiet = client.ask(_after(seconds / 2))
            attack = ["nice", "-n", "19", attacker, *words, "-c", str(connections), "-r", "200"]
            attack += ["-l", str(seconds), "-p", "3", "-v", "0", "-j", f"__Host-ztproxy={cookies(2)[1]}"]
            attack += ["-u", f"https://{HOST}:{product.port}{BIG}"]
            with subprocess.Popen(
                attack, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env
            ) as process:
                under = client.ask(_after(seconds - 1.0))
                process.communicate(timeout=60)
            for which in ("kept", "fresh"):
                late |= _row(mode, which, getattr(quiet, which), getattr(under, which)) >= 2
        print(_counts(product))
        ground.stop(product.pid)
    return int(late)


def _files(ground: Ground) -> int:
    """Start an application with a small and a big file."""
    (ground.root / "app0").mkdir(mode=0o755)
    for path, size in ((SMALL, 1024), (BIG, BIG_SIZE)):
        file = ground.root / path[1:]
        file.write_bytes(b"x" * size)
        file.chmod(0o644)
    return ground.nginx("files", FILES, core=LOAD_CORE, root=ground.root)


def _shim(folder: Path) -> str:
    """Return a library that lets OpenSSL's clients send the server name."""
    source, library = folder / "name.c", folder / "name.so"
    source.write_text(SHIM)
    subprocess.run([program("cc"), "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return str(library)


def _row(mode: str, which: str, quiet: list[float], under: list[float]) -> float:
    times = _p99(under) / _p99(quiet)
    print(
        f"{mode:11}{median(quiet):10.2f}{_p99(quiet):8.2f}{median(under):12.2f}{_p99(under):8.2f}{times:7.2f}"
        f"  {which} connections, {len(quiet)} and {len(under)} requests",
        flush=True,
    )
    return times


def _p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]


def _timed(act: Callable[[], None]) -> float:
    begin = time.perf_counter()
    act()
    return (time.perf_counter() - begin) * 1000


def _after(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


def _counts(product: Ztproxy) -> str:
    """Return what was refused and cut, as the metrics tell."""
    wanted = ("ztproxy_handshake_failures", "ztproxy_refusals", "ztproxy_limited", "ztproxy_slow_clients")
    found = [line for line in product.numbers().splitlines() if line.startswith(wanted)]
    return "\n".join(line for line in found if not line.endswith(" 0.0"))


if __name__ == "__main__":
    sys.exit(main())
