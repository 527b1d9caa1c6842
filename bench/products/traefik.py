"""Traefik: plain, and with forwardAuth to a service on the other core."""

from bench.ground import Ground, program
from bench.machine import LOAD_CORE, free_port
from bench.products import Running, with_children

STATIC = """
global: {{checkNewVersion: false, sendAnonymousUsage: false}}
log: {{level: ERROR}}
entryPoints:
  people:
    address: "127.0.0.1:{port}"
    transport: {{respondingTimeouts: {{readTimeout: 0s, idleTimeout: 600s}}}}
providers: {{file: {{filename: {dynamic}, watch: false}}}}
serversTransport: {{maxIdleConnsPerHost: 2048}}
"""
DYNAMIC = """
tls:
  certificates: [{{certFile: {cert}, keyFile: {key}}}]
  options: {{default: {{minVersion: VersionTLS13, curvePreferences: [X25519], alpnProtocols: [http/1.1]}}}}
http:
  routers:
    app: {{entryPoints: [people], rule: "Host(`localhost`)", service: app, tls: {{}}{middlewares}}}
  services:
    app: {{loadBalancer: {{servers: [{{url: "http://127.0.0.1:{app}"}}]}}}}
"""
CHECK = """
  middlewares:
    check: {{forwardAuth: {{address: "http://127.0.0.1:{auth}/auth"}}}}
"""


def plain(ground: Ground) -> Running:
    """A proxy and nothing else."""
    return _start(ground, "traefik", auth=0)


def forward_auth(ground: Ground) -> Running:
    """With the auth service on the other core, uncounted."""
    return _start(ground, "traefik-forward-auth", auth=ground.auth(LOAD_CORE)[0])


def _start(ground: Ground, name: str, *, auth: int) -> Running:
    folder, port = ground.folder(name), free_port()
    static, dynamic = folder / "traefik.yaml", folder / "dynamic.yaml"
    static.write_text(STATIC.format(port=port, dynamic=dynamic))
    middlewares = ", middlewares: [check]" if auth else ""
    filled = DYNAMIC.format(cert=ground.cert, key=ground.key, app=ground.app, middlewares=middlewares)
    dynamic.write_text(filled + (CHECK.format(auth=auth) if auth else ""))
    pid = ground.spawn(name, [program("traefik"), f"--configFile={static}"], GOMAXPROCS="1")
    ground.wait_for(port, tls=True)
    return Running(name, port, {"proxy": with_children(pid)}, stop=lambda: ground.stop(pid))
