"""TLS handshakes a second: full, with a client certificate, and resumed.

Each connection shakes hands, asks for 1 KiB once, and is closed by the server; so a connection here is a
handshake and a request. The clients may well be slower than the server: the CPU time of a connection in the
server is the figure to go by, and `per core` what one core could do with it.
"""

import os
import subprocess
from dataclasses import dataclass

from bench.ground import HOST, MTLS_HOST, Ground, python
from bench.products import Running, caddy, nginx
from bench.products.ztproxy import Variant, Ztproxy
from bench.requests import Contest, table

CLIENTS = 8
MODES = ("full", "mtls", "resumed")
EXTENSIONS = """
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = clientAuth,serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = critical,URI:spiffe://bench.example/ci/deploy
"""


@dataclass(frozen=True)
class Handshakes:
    """The load: clients that open one connection after another."""

    ground: Ground
    mode: str

    def start(self, port: int, connections: int, seconds: int) -> subprocess.Popen[str]:
        """Start the clients on the core of this process."""
        name = MTLS_HOST if self.mode == "mtls" else HOST
        return client(self.ground, "handshakes", self.mode, name, port, connections, seconds)


def client(
    ground: Ground, what: str, mode: str, name: str, port: int, connections: int, seconds: int
) -> subprocess.Popen[str]:
    """Start one of `bench.clients`."""
    arguments = [what, mode, str(ground.root), name, str(port), str(connections), str(seconds)]
    return subprocess.Popen(
        [python(), "-m", "bench.clients", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OPENSSL_CONF": str(ground.root / "openssl.cnf")},
    )


def measure(ground: Ground, *, rounds: int, seconds: int) -> dict[str, object]:
    """Return a table for each kind of handshake."""
    _client_certificate(ground)
    product = Ztproxy(ground, Variant("ztproxy"))
    ours, plain, strict = product.running(), nginx.plain(ground), nginx.mtls(ground)
    fields: dict[str, list[Running]] = {
        "full": [ours, plain, caddy.plain(ground)],
        "mtls": [ours, strict],
        "resumed": [ours, plain],
    }
    strict.name = "nginx"
    result: dict[str, object] = {}
    for mode, runners in fields.items():
        load = Handshakes(ground, mode)
        contest = Contest(ground.answered, load, runners, connections=CLIENTS, seconds=seconds, ramp=0.7)
        contest.warm_up(2)
        for number in range(rounds):
            contest.round(number)
        rows = table(contest.finished(), "ztproxy")
        for row in rows:
            if isinstance(cpu := row.get("CPU µs"), float) and cpu:
                row["per core"] = round(1e6 / cpu)
        result[mode] = rows
    result["notes"] = [
        "A connection is a handshake and one request: so is CPU µs. `per core`: as many as fill a core.",
        "ztproxy resumes no session: one that is resumed carries a certificate that was checked earlier. "
        "Under `resumed` it does a full handshake, nginx a resumed one.",
    ]
    return result


def _client_certificate(ground: Ground) -> None:
    root = ground.root
    (root / "client.ext").write_text(EXTENSIONS)
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", root / "client.key"]
    ask = ["openssl", "req", *key, "-out", root / "client.csr", "-subj", "/CN=deploy"]
    sign = ["openssl", "x509", "-req", "-in", root / "client.csr", "-CA", root / "ca.pem"]
    sign += ["-CAkey", root / "ca.key", "-CAcreateserial", "-days", "2", "-extfile", root / "client.ext"]
    subprocess.run(ask, check=True, capture_output=True)
    subprocess.run([*sign, "-out", root / "client.pem"], check=True, capture_output=True)
