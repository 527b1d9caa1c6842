"""A client certificate that TLS verified is read from the connection as DER and classified by its bundle."""

import ssl

import pytest

from ztproxy.demo import pki
from ztproxy.demo.layout import TRUST_DOMAIN, WORKLOAD, Layout
from ztproxy.net.certificates import classify, read_bundle, verified_chain
from ztproxy.net.tls import KeyPair, server_context


@pytest.fixture
def layout(tmp_path):
    made = Layout(tmp_path, 8443)
    pki.prepare(made)
    return made


def handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> ssl.SSLObject:
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname="status.ztproxy.localhost"),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ends[1]


def test_the_workload_is_known_by_its_leaf(layout):
    bundle = read_bundle("workloads", "workload", layout.path("tls", "workloads.pem"), TRUST_DOMAIN)
    pair = KeyPair(layout.path("tls", "server.pem"), layout.path("tls", "server.key"))
    client = ssl.create_default_context(cafile=layout.path("tls", "ca.pem"))
    client.load_cert_chain(layout.path("workload", "deployer.pem"), layout.path("workload", "deployer.key"))
    tls = handshake(server_context(pair, "optional", [bundle]), client)
    found = classify(verified_chain(tls), [bundle])
    assert found is not None
    assert (found.kind, found.bundle, found.subject) == ("workload", "workloads", WORKLOAD)


def test_nobody_without_a_certificate(layout):
    bundle = read_bundle("workloads", "workload", layout.path("tls", "workloads.pem"), TRUST_DOMAIN)
    pair = KeyPair(layout.path("tls", "server.pem"), layout.path("tls", "server.key"))
    client = ssl.create_default_context(cafile=layout.path("tls", "ca.pem"))
    tls = handshake(server_context(pair, "optional", [bundle]), client)
    assert classify(verified_chain(tls), [bundle]) is None
