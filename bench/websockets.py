"""WebSocket messages a second: 64 connections, each sends 64 bytes when the message before has come back.

The client is a Python program and may be the slower side: go by the CPU µs of an echo in the proxy.
"""

import subprocess
from dataclasses import dataclass

from bench import upstream
from bench.ground import HOST, Counter, Ground
from bench.handshakes import client
from bench.products import Running, caddy, nginx
from bench.products.ztproxy import Variant, Ztproxy
from bench.requests import Contest, table


@dataclass(frozen=True)
class Echoing:
    """The load: WebSockets through a proxy, or to the application without one and without TLS."""

    ground: Ground
    mode: str = "full"

    def start(self, port: int, connections: int, seconds: int) -> subprocess.Popen[str]:
        """Start the client on the core of this process."""
        return client(self.ground, "websockets", self.mode, HOST, port, connections, seconds)


def measure(ground: Ground, *, rounds: int, seconds: int) -> dict[str, object]:
    """Return one table."""
    port = upstream.start(ground)
    apart = Standing(ground, port)
    runners = [
        Ztproxy(ground, Variant("ztproxy", upstream=port)).running(),
        nginx.plain(apart),
        caddy.plain(apart),
        Running("direct", port, {}),
    ]
    counter = Counter(port, "/count", before=b"requests")
    direct = {"direct": Echoing(ground, "direct")}
    contest = Contest(counter.read, Echoing(ground), runners, seconds=seconds, ramp=0.8, loads=direct)
    contest.warm_up(2)
    for number in range(rounds):
        contest.round(number)
    notes = ["`direct` is client and application without proxy and TLS: what the load itself can do."]
    return {"echoes": table(contest.finished(), "ztproxy"), "notes": notes}


class Standing(Ground):
    """The same ground with another application."""

    def __init__(self, ground: Ground, app: int) -> None:
        self.__dict__.update(ground.__dict__)
        self.app = app
