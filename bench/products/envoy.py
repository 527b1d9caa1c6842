"""Envoy: plain, and with gRPC ext_authz.

The service it asks is nginx, which gives one constant answer to the gRPC call (an empty CheckResponse: status
OK) and runs on the other core, uncounted: as fast as such a service can be.
"""

from bench.ground import Ground, program
from bench.machine import LOAD_CORE, free_port
from bench.products import Running, with_children

CONFIG = """
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    tcp_backlog_size: 4096
    filter_chains:
    - transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            alpn_protocols: [http/1.1]
            tls_params: {{tls_minimum_protocol_version: TLSv1_3, ecdh_curves: [X25519]}}
            tls_certificates:
            - {{certificate_chain: {{filename: {cert}}}, private_key: {{filename: {key}}}}}
      filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3\
.HttpConnectionManager
          stat_prefix: people
          codec_type: HTTP1
          use_remote_address: true
          generate_request_id: false
          upgrade_configs: [{{upgrade_type: websocket}}]
          route_config:
            virtual_hosts:
            - {{name: all, domains: ["*"], routes: [{{match: {{prefix: /}}, route: {{cluster: app}}}}]}}
          http_filters:
          {check}
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
  clusters:
  - {app}
  {auth}
"""
CHECK = """- name: envoy.filters.http.ext_authz
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz
              transport_api_version: V3
              grpc_service: {envoy_grpc: {cluster_name: auth}, timeout: 5s}"""
CLUSTER = """name: {name}
    type: STATIC
    circuit_breakers:
      thresholds: [{{max_connections: 4096, max_pending_requests: 4096, max_requests: 4096}}]
    load_assignment:
      cluster_name: {name}
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}"""
HTTP2 = """
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}"""
SERVICE = """
  server {{
    listen 127.0.0.1:{port} http2 backlog=4096; root {root}/grpc;
    default_type application/grpc; open_file_cache max=10;
    http2_max_concurrent_streams 4096;
    location / {{ error_page 405 =200 $uri; add_trailer grpc-status 0; }}
  }}
"""
CALL = "envoy.service.auth.v3.Authorization/Check"


def plain(ground: Ground) -> Running:
    """A proxy and nothing else."""
    return _start(ground, "envoy", auth=0)


def ext_authz(ground: Ground) -> Running:
    """With the gRPC service on the other core, uncounted."""
    answer = ground.root / "grpc" / CALL
    answer.parent.mkdir(parents=True)
    answer.write_bytes(bytes(5))  # not compressed, a message of no bytes
    port = ground.nginx("grpc-auth", SERVICE, core=LOAD_CORE, root=ground.root)
    return _start(ground, "envoy-ext-authz", auth=port)


def _start(ground: Ground, name: str, *, auth: int) -> Running:
    folder, port = ground.folder(name), free_port()
    config = folder / "envoy.yaml"
    asked = "- " + CLUSTER.format(name="auth", port=auth) + HTTP2 if auth else ""
    config.write_text(
        CONFIG.format(
            port=port,
            cert=ground.cert,
            key=ground.key,
            app=CLUSTER.format(name="app", port=ground.app),
            auth=asked,
            check=CHECK if auth else "",
        )
    )
    command = [program("envoy"), "--concurrency", "1", "--disable-hot-restart", "-l", "error", "-c", config]
    pid = ground.spawn(name, command)
    ground.wait_for(port, tls=True)
    return Running(name, port, {"proxy": with_children(pid)}, stop=lambda: ground.stop(pid))
