"""Many connectors on one node that carry nothing: memory and CPU of its workers. Called by `bench.connector`.

By itself (`python -m bench.idle_connectors PORT FOLDER COUNT`) it is those connectors: in one process, each
with a name and a certificate of its own.
"""

import argparse
import asyncio
import base64
import ssl
import time
from pathlib import Path

import msgspec
import uvloop
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256, Hash
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from bench.ground import Ground, python
from bench.machine import LOAD_CORE, cpu_seconds, memory_kib
from bench.products.ztproxy import HOUR, cookies, people, put_all
from bench.products.ztproxy_connected import CONNECT, Connected
from ztproxy.administrator.issue import CONNECTORS, load_authority
from ztproxy.connector.allowed import Allowed
from ztproxy.connector.links import Links, Proxy
from ztproxy.model.connector import Connector
from ztproxy.net.clock import SystemClock, entropy

SECONDS = 20  # over which CPU is counted


class Crowded(Connected):
    """A product that knows many connectors. `count` is how many."""

    count = 1000

    def _configure(self) -> None:
        super()._configure()
        state, clock = self.folder / "state", SystemClock()
        authority = load_authority(
            state, CONNECTORS, trust_domain="bench.example", lifetime=24 * HOUR, clock=clock, entropy=entropy
        )
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        digest = Hash(SHA256())
        digest.update(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
        spki = digest.finalize().hex()
        rows = []
        for number in range(self.count):
            name, instance = f"c{number}", _instance(number)
            issued = authority.issue(key.public_key(), name, instance)
            (self.folder / f"{name}.pem").write_bytes(pem + issued.pem.encode())
            known = Connector(
                name,
                instance,
                spki,
                enrolled_at=clock.now(),
                certificates={issued.fingerprint: issued.not_after},
            )
            rows.append(("connector", known.key, msgspec.msgpack.encode(known)))
        database = state / "ztproxy.db"
        for file in state.glob("ztproxy.db*"):
            file.unlink()
        put_all(database, people(cookies(1)) + rows)


def _instance(number: int) -> str:
    return base64.b32encode(number.to_bytes(9, "big")).decode().lower().rstrip("=")[:13]


def measure(ground: Ground, product: Crowded) -> dict[str, object]:
    """Return what they cost."""
    workers = product.parts()["workers"]
    time.sleep(2)
    before, alone = memory_kib(workers), cpu_seconds(workers)
    time.sleep(SECONDS / 2)
    alone = (cpu_seconds(workers) - alone) * 2
    arguments = [str(product.port), str(product.folder), str(product.count)]
    pid = ground.spawn(
        "connectors",
        [python(), "-m", "bench.idle_connectors", *arguments],
        core=LOAD_CORE,
        SSL_CERT_FILE=str(ground.cert),
    )
    began = time.monotonic()
    product.ready(product.count, seconds=240)
    took = time.monotonic() - began
    time.sleep(5)
    held, cpu = memory_kib(workers) - before, cpu_seconds(workers)
    time.sleep(SECONDS)
    busy = cpu_seconds(workers) - cpu
    others = memory_kib([pid])
    return {
        "connectors": product.count,
        "ready after s": round(took, 1),
        "KiB each, workers": round(held / product.count, 1),
        "CPU of a core, %": round(100 * busy / SECONDS, 2),
        "without them, %": round(100 * alone / SECONDS, 2),
        "KiB each, at the other end": round(others / product.count, 1),
    }


async def dial(port: int, folder: Path, count: int) -> None:
    """Be that many connectors."""
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            context = ssl.create_default_context()
            context.load_cert_chain(folder / f"c{number}.pem")
            links = Links(
                [Proxy("127.0.0.1", port, CONNECT)],
                lambda context=context: context,  # type: ignore[misc]
                Allowed(["http://127.0.0.1:9"]),
                version="bench",
            )
            group.create_task(links.run())
            await asyncio.sleep(0.002)


def main() -> None:
    """Dial until ended."""
    parser = argparse.ArgumentParser(description="Many connectors")
    parser.add_argument("port", type=int)
    parser.add_argument("folder", type=Path)
    parser.add_argument("count", type=int)
    options = parser.parse_args()
    uvloop.run(dial(options.port, options.folder, options.count))


if __name__ == "__main__":
    main()
