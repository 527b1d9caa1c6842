"""Upstreams as an operator has them: two of a kind that fail and come back, paths, fields, other origins.

`ztproxy run` with a configuration of its own: everything here is public, so that nobody has to sign in.
"""

import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

HOST = "intranet.corp.example"
ZTPROXY = [sys.executable, "-m", "ztproxy"]


class App:
    """An application that tells what it was asked, and can be ill, or away."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.status = 200
        self.asked: list[str] = []
        self.port = 0
        self.start()

    def start(self) -> None:
        app = self

        class Answering(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                app.asked.append(self.path)
                told = {"app": app.name, "path": self.path, "headers": dict(self.headers.items())}
                body = json.dumps(told).encode()
                self.send_response(app.status if self.path == "/inside/up" else 200)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Set-Cookie", "a=b; Path=/inside/")
                self.send_header("Location", "/inside/next")
                self.send_header("X-Powered-By", "secrets")
                self.end_headers()
                try:
                    self.wfile.write(body)
                except OSError:
                    self.close_connection = True  # a check does not wait for content

            def log_message(self, *_: object) -> None: ...

        class Server(ThreadingHTTPServer):
            allow_reuse_address = True
            daemon_threads = True
            block_on_close = False
            connections: list[Any] = []  # noqa: RUF012

            def process_request(self, request: Any, client_address: Any) -> None:
                self.connections.append(request)
                super().process_request(request, client_address)

        self.server = Server(("127.0.0.1", self.port), Answering)
        self.server.connections = []
        self.port = self.server.server_address[1]
        threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        for connection in self.server.connections:
            try:
                connection.shutdown(2)
            except OSError:
                pass


ROUTES = """
routes:
  - name: intranet
    from: https://intranet.corp.example/portal/
    to: [http://127.0.0.1:{one}, {{url: "http://127.0.0.1:{two}", weight: 1}}]
    strip_prefix: true
    prefix: /inside/
    timeouts: {{connect: 1s, response: 5s}}
    health: {{path: /inside/up, interval: 200ms, timeout: 100ms, healthy_after: 2, unhealthy_after: 2}}
    ejection: {{failures: 2, time: 1s, longest: 2s}}
    request_headers: {{set: {{X-Who: "${{principal.id}} on ${{route.name}}"}}, remove: [X-Debug]}}
    response_headers: {{set: {{X-Frame-Options: DENY}}, remove: [X-Powered-By]}}
    cors: {{origins: ["https://page.example"], credentials: true}}
    public: [/portal/open/]
"""


class Running:
    """`ztproxy run` and two applications behind it."""

    def __init__(self, folder: Path, port: int, telemetry: int, apps: tuple[App, App]) -> None:
        self.folder, self.port, self.telemetry, self.apps = folder, port, telemetry, apps

    def curl(self, path: str, *arguments: str) -> tuple[int, dict[str, str], str]:
        """Return status, fields and body."""
        command = [
            "curl",
            "--silent",
            "--max-time",
            "10",
            "--include",
            "--cacert",
            f"{self.folder}/tls/ca.pem",
        ]
        there = ["--resolve", f"{HOST}:{self.port}:127.0.0.1", f"https://{HOST}:{self.port}{path}"]
        done = subprocess.run([*command, *arguments, *there], capture_output=True, text=True, check=False)
        head, _, body = done.stdout.partition("\n\n")
        first, *lines = head.splitlines()
        fields = {line.partition(": ")[0].lower(): line.partition(": ")[2] for line in lines}
        return int(first.split()[1]), fields, body

    def served(self, count: int) -> set[str]:
        """Return which applications answered so many requests."""
        answers = [self.curl("/portal/open/x") for _ in range(count)]
        assert [status for status, _, _ in answers] == [200] * count
        return {json.loads(body)["app"] for _, _, body in answers}

    def metrics(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.telemetry}/metrics", timeout=5) as answer:
            return str(answer.read().decode())

    def up(self, app: App) -> bool | None:
        """Return what all workers say of a target."""
        found = [
            line.endswith(" 1.0")
            for line in self.metrics().splitlines()
            if line.startswith("ztproxy_target_up{") and f":{app.port}" in line
        ]
        return found[0] if found and len(set(found)) == 1 else None


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(true: Callable[[], Any], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, true
        time.sleep(0.1)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("upstreams")
    subprocess.run([*ZTPROXY, "init", str(folder)], check=True, capture_output=True)
    port, telemetry = unused_port(), unused_port()
    apps = (App("one"), App("two"))
    file = folder / "ztproxy.yaml"
    text = file.read_text().partition("\nroutes:")[0].replace("127.0.0.1:8443", f"127.0.0.1:{port}")
    text += f"\ntelemetry: {{listen: '127.0.0.1:{telemetry}'}}\nworkers: 2\n"
    file.write_text(text + ROUTES.format(one=apps[0].port, two=apps[1].port))
    subprocess.run([*ZTPROXY, "check", "--config", str(file)], check=True, capture_output=True)
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen([*ZTPROXY, "run", "--config", str(file)], stdout=log, stderr=log)
    made = Running(folder, port, telemetry, apps)
    try:
        until(lambda: (folder / "log").read_text().count("worker is up") == 2 or process.poll() is not None)
        assert process.poll() is None, (folder / "log").read_text()
        yield made
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        for app in apps:
            app.stop()


def test_callers_and_the_application_each_know_their_own_names(running: Running) -> None:
    status, fields, body = running.curl(
        "/portal/open/a?b=c", "--header", "X_Who: root", "--header", "x-debug: 1"
    )
    told = json.loads(body)
    assert (status, told["path"]) == (200, "/inside/open/a?b=c")
    assert fields["location"] == f"https://{HOST}:{running.port}/portal/next"
    assert fields["set-cookie"] == "a=b; Path=/portal"
    assert fields["x-frame-options"] == "DENY" and "x-powered-by" not in fields
    headers = {name.lower(): value for name, value in told["headers"].items()}
    assert headers["x-who"] == "anonymous on intranet"
    assert not {"x_who", "x-debug"} & set(headers)


def test_public_is_what_was_named_and_nothing_else(running: Running) -> None:
    for path in ("/portal/", "/portal/open", "/portal/openx", "/portal/open/../", "/portal/open/%2E%2E/x"):
        status, _, _ = running.curl(path, "--path-as-is")
        assert status in (400, 401), path
    assert running.curl("/portal/open/x", "--request", "POST")[0] == 401
    cookie = "__Host-ztproxy=" + "x" * 43
    assert running.curl("/portal/open/x", "--cookie", cookie)[0] == 200
    assert running.curl("/portal/", "--cookie", cookie)[0] == 401


def test_pages_of_other_origins(running: Running) -> None:
    ask = ["--request", "OPTIONS", "--header", "Access-Control-Request-Method: PUT", "--header"]
    before = sum(len(app.asked) for app in running.apps)
    status, fields, _ = running.curl("/portal/anything", *ask, "Origin: https://page.example")
    assert (status, fields["access-control-allow-origin"]) == (204, "https://page.example")
    assert running.curl("/portal/anything", *ask, "Origin: https://evil.example")[0] == 403
    asked = [path for app in running.apps for path in app.asked if path != "/inside/up"]
    assert len(asked) <= before and "/inside/anything" not in asked
    status, fields, _ = running.curl("/portal/open/x", "--header", "Origin: https://page.example")
    assert fields["access-control-allow-credentials"] == "true" and fields["vary"] == "Origin"


def test_targets_share_fail_and_come_back_and_no_request_is_lost(running: Running) -> None:
    one, two = running.apps
    assert running.served(12) == {"one", "two"}
    two.status = 503  # it says that it is ill
    until(lambda: running.up(two) is False)
    assert running.up(one) is True
    assert running.served(12) == {"one"}
    two.status = 200
    until(lambda: running.up(two) is True)
    assert running.served(12) == {"one", "two"}
    one.stop()  # it is gone at once, before any check
    assert running.served(12) == {"two"}
    until(lambda: running.up(one) is False)
    one.start()
    until(lambda: running.up(one) is True)
    assert running.served(12) == {"one", "two"}
    one.stop()
    two.stop()
    assert running.curl("/portal/open/x")[0] == 502
    one.start()
    two.start()
    until(lambda: running.up(one) is True and running.up(two) is True)
    log = (running.folder / "log").read_text()
    assert "Traceback" not in log
    assert "fails its checks" in log


def test_the_record_names_the_target(running: Running) -> None:
    running.curl("/portal/open/recorded")

    def recorded() -> bool:
        logs = [file.read_text() for file in (running.folder / "state/recordings").glob("log-*.jsonl")]
        return any(f'"upstream":"http://127.0.0.1:{app.port}"' in log for log in logs for app in running.apps)

    until(recorded)
