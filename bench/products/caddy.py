"""Caddy: plain, and with forward_auth to a service on the other core."""

from bench.ground import Ground, program
from bench.machine import LOAD_CORE, free_port
from bench.products import Running, with_children

CADDYFILE = """
{{
  admin off
  auto_https off
  persist_config off
  skip_install_trust
  log {{
    level ERROR
  }}
  servers {{
    protocols h1
  }}
}}
https://localhost:{port} {{
  bind 127.0.0.1
  tls {cert} {key} {{
    protocols tls1.3
    curves x25519
  }}
  {check}
  reverse_proxy 127.0.0.1:{app} {{
    transport http {{
      keepalive_idle_conns 2048
      keepalive_idle_conns_per_host 2048
      compression off
    }}
  }}
}}
"""
CHECK = """forward_auth 127.0.0.1:{auth} {{
    uri /auth
    transport http {{
      keepalive_idle_conns 2048
      keepalive_idle_conns_per_host 2048
      compression off
    }}
  }}"""


def plain(ground: Ground) -> Running:
    """A proxy and nothing else."""
    return _start(ground, "caddy", "")


def forward_auth(ground: Ground) -> Running:
    """With the auth service on the other core, uncounted."""
    return _start(ground, "caddy-forward-auth", CHECK.format(auth=ground.auth(LOAD_CORE)[0]))


def _start(ground: Ground, name: str, check: str) -> Running:
    folder, port = ground.folder(name), free_port()
    config = folder / "Caddyfile"
    config.write_text(
        CADDYFILE.format(port=port, cert=ground.cert, key=ground.key, app=ground.app, check=check)
    )
    command = [program("caddy"), "run", "--config", config, "--adapter", "caddyfile"]
    home = str(folder)
    pid = ground.spawn(name, command, HOME=home, XDG_DATA_HOME=home, XDG_CONFIG_HOME=home, GOMAXPROCS="1")
    ground.wait_for(port, tls=True)
    return Running(name, port, {"proxy": with_children(pid)}, stop=lambda: ground.stop(pid))
