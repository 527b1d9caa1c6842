"""HAProxy as a plain proxy: it brings no request to an auth service of its own, so it has no second form."""

from bench.ground import Ground, program
from bench.machine import free_port
from bench.products import Running, with_children

CONFIG = """
global
  nbthread 1
  maxconn 9000
  ssl-default-bind-options ssl-min-ver TLSv1.3
defaults
  mode http
  option http-keep-alive
  http-reuse always
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  timeout tunnel 600s
frontend people
  bind 127.0.0.1:{port} ssl crt {pem} alpn http/1.1 backlog 4096
  http-request set-header X-Forwarded-Proto https
  default_backend application
backend application
  server app 127.0.0.1:{app} pool-max-conn 2048
"""


def plain(ground: Ground) -> Running:
    """A proxy and nothing else."""
    folder, port = ground.folder("haproxy"), free_port()
    pem = folder / "both.pem"
    pem.touch(mode=0o600)
    pem.write_bytes(ground.cert.read_bytes() + ground.key.read_bytes())
    config = folder / "haproxy.cfg"
    config.write_text(CONFIG.format(port=port, pem=pem, app=ground.app))
    pid = ground.spawn("haproxy", [program("haproxy"), "-db", "-f", config])
    ground.wait_for(port, tls=True)
    return Running("haproxy", port, {"proxy": with_children(pid)}, stop=lambda: ground.stop(pid))
