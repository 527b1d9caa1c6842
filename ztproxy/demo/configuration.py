"""Writes the demo's configuration: an ordinary file for `ztproxy run`, worth reading and changing.

Called by `demo.run` at every start. The policies are copied once and then belong to whoever edits them.
"""

from collections.abc import Callable
from importlib.resources import files
from typing import Final

from msgspec import Struct

from ztproxy.demo.layout import (
    APPS,
    CONNECTOR,
    DOMAIN,
    PORTAL,
    POSTURE_MAX_AGE,
    TRUST_DOMAIN,
    WORKLOAD,
    Layout,
    write,
)
from ztproxy.demo.provider import CLIENT, Provider


class Ports(Struct, frozen=True):
    """Ports on loopback that were free, apart from the front door's."""

    provider: int
    metrics: int
    agent: int
    support: int
    wiki: int
    status: int


_ALSO: Final = """
  - name: {name}
    title: {name}
    app: operations
    from: https://{name}.{domain}
    to: {address}
"""

_TEMPLATE: Final = """\
# The demo's configuration, written anew at every start of `ztproxy demo`.
# Check it with: ztproxy check --config {file}

listen: 127.0.0.1:{port}
workers: 2
trust_domain: {trust_domain}
state: state

tls:
  certificates:
    - {{cert: tls/server.pem, key: "file:tls/server.key"}}

portal:
  host: {portal}
  title: ztproxy demo

telemetry: {{listen: "127.0.0.1:{metrics}"}}
log: {{level: info, format: text}}
limits:  # everybody comes from loopback here, and so is one source
  handshakes_per_source: unlimited
  handshaking_per_source: 1000
  requests_per_source: unlimited

identity:
  providers:
    - name: demo
      title: Demo sign-in
      issuer: {issuer}
      client_id: {client}
      client_secret: file:provider/client-secret
      scopes: [openid, profile, email, groups]
      groups_claim: groups
      offline: true  # so that it can be asked again while people are at work
      algorithms: [RS256]

# The pipeline shows a certificate of this authority; the certificate's name must lie in the trust domain.
client_certificates:
  - {{name: workloads, ca: tls/workloads.pem, kind: workload, trust_domain: {trust_domain}}}
workloads:
  - {{id: "{workload}", groups: [deployers]}}

sessions: {{idle: 30m, absolute: 10h}}

# In a plain browser, sign-in asks the device's agent on one of these ports of loopback.
devices: {{agent_ports: [{agent}], certificate_lifetime: 24h, posture_max_age: {max_age}s}}

# Nothing here has a way to the applications, but through the connector beside them. It dials in on this host.
connectors: {{host: connect.{domain}}}

policy:
  files: [policies/demo.cedar]
  tests: [policies/tests.yaml]
  timezone: Europe/Berlin

routes:
  - name: support
    title: Support desk
    description: Tickets of our customers
    app: operations
    from: https://support.{domain}
    to: {support}
    connector: {connector}

  - name: wiki
    title: Operations wiki
    description: What operations knows
    app: operations
    from: https://wiki.{domain}
    to: {wiki}
    connector: {connector}

  - name: status
    title: Deployments
    description: What runs, and the pipeline's way to change it
    from: https://status.{domain}
    to: {status}
    connector: {connector}
    websocket: false
"""


def prepare(layout: Layout, ports: Ports, provider: Provider, target: Callable[[str], str]) -> None:
    """Write the configuration, and the policies unless they are there. `target` says where an app is."""
    text = _TEMPLATE.format(
        file=layout.config,
        port=layout.port,
        portal=PORTAL,
        domain=DOMAIN,
        trust_domain=TRUST_DOMAIN,
        workload=WORKLOAD,
        issuer=provider.issuer,
        client=CLIENT,
        max_age=POSTURE_MAX_AGE,
        metrics=ports.metrics,
        agent=ports.agent,
        connector=CONNECTOR,
        **{app: target(app) for app in APPS},
    )
    for name, address in layout.also:
        text += _ALSO.format(name=name, domain=DOMAIN, address=address)
    write(layout.config, text, mode=0o644)
    for policy in (files("ztproxy.demo") / "policies").iterdir():
        copy = layout.path("policies", policy.name)
        if not copy.exists():
            write(copy, policy.read_bytes(), mode=0o644)
