"""redis-server processes of our own: plain ones, one behind TLS with an ACL user, a cluster of masters."""

import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ztproxy.crypto.issue import create_authority, issue_server, pem
from ztproxy.crypto.template import term
from ztproxy.net import keyfiles
from ztproxy.net.clock import SystemClock, entropy
from ztproxy.store.redis_client import RedisOptions

#: What docs/how-to tells to permit, and no more.
ACL = (
    "user zt on >right resetchannels ~{ztproxy:*}:* -@all +eval +evalsha +script|load +get +incr +hget +hset"
    " +hdel +zadd +zrem +zrange +xadd +xrange +xrevrange +xread +info +config|get +wait +time +set"
)
SLOTS = 16384


class Servers:
    """redis-server processes on ports of their own."""

    def __init__(self, root: Path, free_port: Callable[[], int]) -> None:
        self._root = root
        self._free_port = free_port
        self.processes: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, *options: str, program: str = "redis-server") -> int:
        port = self._free_port()
        folder = self._root / str(port)
        folder.mkdir()
        config = folder / "redis.conf"
        config.write_text(
            "\n".join(("bind 127.0.0.1", f"dir {folder}", 'save ""', *options)).format(port=port)
        )
        sentinel = ["--sentinel"] if program == "redis-sentinel" else []
        with (folder / "log").open("wb") as log:
            self.processes[port] = subprocess.Popen(["redis-server", str(config), *sentinel], stdout=log)
        return port

    def server(self, *options: str) -> int:
        return self.start(
            "port {port}", "appendonly yes", "appendfsync always", "repl-diskless-sync-delay 0", *options
        )

    def kill(self, port: int) -> None:
        process = self.processes.pop(port)
        process.kill()
        process.wait()

    def end(self) -> None:
        for port in list(self.processes):
            self.kill(port)


def behind_tls(servers: Servers, folder: Path) -> RedisOptions:
    """Start a server that speaks TLS only, to one user only; return how that user reaches it."""
    key, own, at = keyfiles.new_key(), keyfiles.new_key(), SystemClock().now()
    root = create_authority("redis", key, term(at, 86_400_000, entropy))
    names = ("redis.corp.example",)
    leaf = issue_server(root, own.public_key(), term(at, 86_400_000, entropy), dns_names=names)
    keyfiles.write(folder / "own.key", keyfiles.key_pem(own))
    keyfiles.write(folder / "own.pem", pem(leaf).encode())
    keyfiles.write(folder / "ca.pem", pem(root.certificate).encode())
    port = servers.start(
        "port 0", "tls-port {port}", "appendonly yes", "appendfsync always", "tls-auth-clients no",
        f"tls-cert-file {folder}/own.pem", f"tls-key-file {folder}/own.key",
        f"tls-ca-cert-file {folder}/ca.pem", "user default off", ACL.replace("{", "{{").replace("}", "}}"),
    )  # fmt: skip
    _until(lambda: listens(port))
    return RedisOptions(
        url=f"rediss://127.0.0.1:{port}",
        tls=ssl.create_default_context(cafile=str(folder / "ca.pem")),
        server_name="redis.corp.example",
        username="zt",
        password="right",
    )


def cluster(servers: Servers, masters: int = 3) -> RedisOptions:
    """Start so many masters that share the slots; return how they are reached, once all know it."""
    buses = [servers._free_port() for _ in range(masters)]
    ports = [
        servers.server("cluster-enabled yes", "cluster-node-timeout 60000", f"cluster-port {bus}")
        for bus in buses
    ]
    for port in ports:
        _until(lambda port=port: said(port, "ping") == "PONG")
    for number, port in enumerate(ports):
        first, last = SLOTS * number // masters, SLOTS * (number + 1) // masters - 1
        assert said(port, "cluster", "addslotsrange", str(first), str(last)) == "OK"
        assert said(port, "cluster", "set-config-epoch", str(number + 1)) == "OK"
    for port, bus in list(zip(ports, buses, strict=True))[1:]:
        assert said(ports[0], "cluster", "meet", "127.0.0.1", str(port), str(bus)) == "OK"
    for port in ports:
        _until(lambda port=port: _whole(said(port, "cluster", "info"), masters))
    return RedisOptions(url=f"redis://127.0.0.1:{ports[0]}", cluster=True)


def _whole(info: str, masters: int) -> bool:
    return "cluster_state:ok" in info and f"cluster_size:{masters}" in info


def listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def said(port: int, *command: str) -> str:
    done = subprocess.run(["redis-cli", "-p", str(port), *command], capture_output=True, check=False)
    return done.stdout.decode().strip()


def _until(fact: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < deadline
        time.sleep(0.05)
