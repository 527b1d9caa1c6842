"""What every proxy under test stands on: a certificate, an application of 1 KiB answers, processes and ports.

Made once for a run (`with Ground() as ground:`); everything it started ends with it. Proxies run on core 0,
everything else on core 1.
"""

import os
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.machine import LOAD_CORE, PROXY_CORE, family, free_port

SOURCE = Path(__file__).resolve().parent.parent
COMPILED = SOURCE / "build" / "compiled"
#: Where programs under test find ztproxy: compiled where it is, else as it stands here.
PATH = os.pathsep.join(map(str, (COMPILED, SOURCE) if COMPILED.is_dir() else (SOURCE,)))

HOST = "localhost"  # wrk sends the host of its address as server name
MTLS_HOST = "mtls.localhost"
COOKIE = "b" * 43
CIPHER = "TLS_AES_128_GCM_SHA256"
BODY = "x" * 1024

#: One cipher and one group for whoever asks: so all proxies do the same cryptography.
OPENSSL_CLIENT = f"""
openssl_conf = all
[all]
ssl_conf = ssl
[ssl]
system_default = tls
[tls]
MinProtocol = TLSv1.3
Ciphersuites = {CIPHER}
Groups = X25519
"""

NGINX = """
worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error.log crit;
worker_rlimit_nofile 65536;
events {{ worker_connections 32768; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 600s; sendfile on; tcp_nopush on;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  {content}
}}
"""
APPLICATION = """
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{ return 200 "{body}"; }}
    location = /-/status {{ stub_status; }}
    location ~ /big$ {{ alias {root}/big; }}
  }}
"""


class Missing(Exception):
    """A program that this part needs is not installed."""


def program(name: str) -> str:
    """Return where a program is: beside the other servers from wheels, or on the path."""
    own = Path(".venv-bench/bin").resolve() / name
    found = str(own) if own.exists() else shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if found is None:
        raise Missing(f"{name} is not installed (make bench fetches it)")
    return found


class Ground:
    """Folder, certificate, application and processes of one run."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="ztproxy-bench-"))
        self.root.chmod(0o711)  # nginx reads its files as nobody when root starts it
        self.cert, self.key = self.root / "server.pem", self.root / "server.key"
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self._services: dict[str, int] = {}
        self._counter: Counter | None = None

    def __enter__(self) -> Self:
        try:
            os.sched_setaffinity(0, {LOAD_CORE})
        except OSError as error:
            raise Missing(f"cores {PROXY_CORE} and {LOAD_CORE} are both needed") from error
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nothing stays behind
        try:
            self._certificates()
            (self.root / "openssl.cnf").write_text(OPENSSL_CLIENT)
            self.app = self.nginx("app", APPLICATION, core=LOAD_CORE, body=BODY, root=self.root)
            self.wait_for(self.app)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pid in list(self._running):
            self.stop(pid)
        shutil.rmtree(self.root, ignore_errors=True)

    # processes

    def folder(self, name: str) -> Path:
        """Return a new folder of that name, or of one like it when a proxy runs twice."""
        made = self.root / name
        if made.exists():
            made = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.root))
        made.mkdir(exist_ok=True)
        made.chmod(0o711)  # nginx works in it as nobody
        return made

    def spawn(self, name: str, command: list[str | Path], *, core: int = PROXY_CORE, **env: str) -> int:
        """Start a program on a core; what it says goes to `NAME.log`. Return its pid."""
        with (self.root / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                ["taskset", "-c", str(core), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.root,  # not where the source lies: Python would prefer it
                env={**os.environ, "PYTHONPATH": PATH, **env},
            )
        self._running[process.pid] = process
        return process.pid

    def stop(self, pid: int) -> None:
        """End a program that `spawn` started, and whatever it started."""
        process = self._running.pop(pid)
        rest = family(pid)[1:]
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for one in rest:  # children of one that did not take them along
            try:
                os.kill(one, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def said(self, name: str) -> str:
        """Return the end of what a program said."""
        return (self.root / f"{name}.log").read_text(errors="replace")[-2000:]

    # what proxies need

    def nginx(self, name: str, content: str, *, core: int = PROXY_CORE, **values: object) -> int:
        """Start an nginx with `content` in its http block; return its port. Its pid: `service`."""
        folder, port = self.folder(name), free_port()
        config = folder / "nginx.conf"
        filled = content.format(port=port, **values)
        config.write_text(NGINX.format(folder=folder, content=filled))
        self._services[name] = self.spawn(
            name, [program("nginx"), "-p", folder, "-c", config, "-e", folder / "error.log"], core=core
        )
        return port

    def service(self, name: str) -> int:
        """Return the pid of an nginx by its name."""
        return self._services[name]

    def auth(self, core: int) -> tuple[int, int]:
        """Return port and pid of an auth service that always says 204, one for each core."""
        name = f"auth-{core}"
        if name not in self._services:
            content = "server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ return 204; }} }}"
            setattr(self, name, self.nginx(name, content, core=core))
        return getattr(self, name), self.service(name)

    def wait_for(self, port: int, *, tls: bool = False, seconds: float = 30) -> None:
        """Wait until a GET is answered with 200. Raises TimeoutError."""
        end = time.monotonic() + seconds
        seen = "no answer"
        while time.monotonic() < end:
            try:
                seen = str(self.get(port, tls=tls))
                if seen == "200":
                    return
            except OSError as error:
                seen = str(error)
            time.sleep(0.05)
        raise TimeoutError(f"port {port} does not answer 200 but: {seen}")

    def get(self, port: int, path: str = "/app0/", *, tls: bool = True) -> int:
        """Return the status of one request as the load would send it."""
        context = ssl._create_unverified_context()
        made = HTTPSConnection(HOST, port, context=context, timeout=10) if tls else HTTPConnection(HOST, port)
        try:
            made.request("GET", path, headers={"Cookie": f"__Host-ztproxy={COOKIE}", "Accept": "*/*"})
            return made.getresponse().status
        finally:
            made.close()

    def answered(self) -> int:
        """Return how many requests the application has answered, without those that asked for this number."""
        if self._counter is None:
            self._counter = Counter(self.app, "/-/status", before=b"requests")
        return self._counter.read()

    def _certificates(self) -> None:
        names = ",".join(f"DNS:{name}" for name in (HOST, MTLS_HOST, "portal.localhost", "connect.localhost"))
        make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        for stem, name, more in (
            ("server", HOST, ["-addext", f"subjectAltName={names}"]),
            ("ca", "bench authority", ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]),
        ):
            files = ["-keyout", self.root / f"{stem}.key", "-out", self.root / f"{stem}.pem"]
            subject = ["-days", "30", "-subj", f"/CN={name}"]
            subprocess.run([*make, *files, *subject, *more], check=True, capture_output=True)
            (self.root / f"{stem}.key").chmod(0o600)


class Counter:
    """Asks a server how many requests it has had. Its own questions do not count."""

    def __init__(self, port: int, path: str, *, before: bytes) -> None:
        self._http = HTTPConnection("127.0.0.1", port, timeout=10)
        self._path, self._before, self._asked = path, before, 0

    def read(self) -> int:
        """Return the third number after the word `before`, less our own questions."""
        self._http.request("GET", self._path)
        words = self._http.getresponse().read().split()
        self._asked += 1
        return int(words[words.index(self._before) + 3]) - self._asked


def python() -> str:
    """Return the interpreter that runs ztproxy here."""
    return sys.executable


def is_compiled() -> bool:
    """Tell whether the product under test is the wheel that `scripts/compile` laid out, or plain source."""
    return COMPILED.is_dir()
