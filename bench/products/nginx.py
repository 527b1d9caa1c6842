"""nginx: as a plain proxy, and with auth_request to a service that always says 204."""

from bench.ground import Ground
from bench.machine import LOAD_CORE, PROXY_CORE
from bench.products import Running, with_children

SERVER = """
  upstream app {{ server 127.0.0.1:{app}; keepalive 1024; keepalive_requests 1000000000; }}
  {auth_upstream}
  proxy_http_version 1.1; proxy_set_header Connection $upgrade; proxy_set_header Upgrade $http_upgrade;
  proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr;
  proxy_set_header X-Forwarded-Proto https;
  map $http_upgrade $upgrade {{ default upgrade; "" ""; }}
  server {{
    listen 127.0.0.1:{port} ssl backlog=4096;
    ssl_certificate {cert}; ssl_certificate_key {key}; ssl_protocols TLSv1.3;
    ssl_session_cache shared:tls:20m; ssl_session_tickets on; {more}
    client_max_body_size 0; proxy_request_buffering off;
    proxy_buffers 16 32k; proxy_busy_buffers_size 64k; proxy_max_temp_file_size 0;
    location / {{ {check} proxy_pass http://app; }}
    {auth_location}
  }}
"""
AUTH_UPSTREAM = "upstream auth {{ server 127.0.0.1:{auth}; keepalive 1024; keepalive_requests 1000000000; }}"
AUTH_LOCATION = """
    location = /-/auth {
      internal; proxy_pass http://auth; proxy_pass_request_body off; proxy_set_header Content-Length "";
      proxy_set_header Connection ""; proxy_set_header X-Original-URI $request_uri;
    }
"""


def plain(ground: Ground) -> Running:
    """A proxy and nothing else."""
    return _start(ground, "nginx")


def mtls(ground: Ground) -> Running:
    """A plain proxy that demands a client certificate."""
    more = f"ssl_client_certificate {ground.root}/ca.pem; ssl_verify_client on;"
    return _start(ground, "nginx-mtls", more=more)


def auth_request(ground: Ground) -> Running:
    """With the auth service on the same core; its CPU counts, as that of any part of a product."""
    port, service = ground.auth(PROXY_CORE)
    running = _start(ground, "nginx-auth", auth=port)
    running.counted["auth service"] = with_children(service)
    return running


def auth_request_uncounted(ground: Ground) -> Running:
    """With the auth service on the other core, where it costs nothing that is counted."""
    return _start(ground, "nginx-auth-uncounted", auth=ground.auth(LOAD_CORE)[0])


def _start(ground: Ground, name: str, *, auth: int = 0, more: str = "") -> Running:
    port = ground.nginx(
        name,
        SERVER,
        app=ground.app,
        cert=ground.cert,
        key=ground.key,
        more=more,
        auth_upstream=AUTH_UPSTREAM.format(auth=auth) if auth else "",
        check="auth_request /-/auth;" if auth else "",
        auth_location=AUTH_LOCATION if auth else "",
    )
    if "ssl_verify_client" not in more:
        ground.wait_for(port, tls=True)
    pid = ground.service(name)
    return Running(name, port, {"proxy": with_children(pid)}, stop=lambda: ground.stop(pid))
