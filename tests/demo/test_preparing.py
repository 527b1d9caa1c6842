"""What the demo prepares is whole, private, and the same at the next start."""

import json
import os
import socket
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ztproxy.crypto.certificates import check_svid, leaf_facts
from ztproxy.demo import people, pki, ports
from ztproxy.demo.errors import DemoProblem
from ztproxy.demo.layout import TRUST_DOMAIN, WORKLOAD, Layout, write


@pytest.fixture
def layout(tmp_path, free_port):
    return Layout(tmp_path / "demo", free_port())


def test_keys_and_people_are_kept(layout):
    pki.prepare(layout)
    cast = people.prepare(layout)
    before = {path: path.read_bytes() for path in layout.root.rglob("*") if path.is_file()}
    pki.prepare(layout)
    assert people.prepare(layout) == cast
    assert {path: path.read_bytes() for path in layout.root.rglob("*") if path.is_file()} == before
    assert len({person.password for person in cast}) == 3


def test_secrets_are_for_the_owner_alone(layout):
    pki.prepare(layout)
    people.prepare(layout)
    secret = [path for path in layout.root.rglob("*") if path.suffix in (".key", ".json")]
    assert len(secret) == 5
    assert all(path.stat().st_mode & 0o077 == 0 for path in secret)


def test_the_server_certificate_is_one_that_clients_accept(layout):
    pki.prepare(layout)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(layout.path("tls", "server.pem"), layout.path("tls", "server.key"))
    client = ssl.create_default_context(cafile=layout.path("tls", "ca.pem"))
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname="wiki.ztproxy.localhost"),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert ends[0].getpeercert()["subject"] == ((("commonName", "portal.ztproxy.localhost"),),)


def test_the_workload_has_one_spiffe_id_and_no_other_name(layout):
    pki.prepare(layout)
    leaf = x509.load_pem_x509_certificate(layout.path("workload", "deployer.pem").read_bytes())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [name.value for name in names] == [WORKLOAD]
    assert check_svid(leaf_facts(leaf.public_bytes(Encoding.DER)), TRUST_DOMAIN).path == "/ci/deployer"


def test_another_authority_means_other_leaves(layout):
    pki.prepare(layout)
    cert = layout.path("tls", "server.pem")
    before = cert.read_bytes()
    layout.path("tls", "ca.pem").unlink()
    pki.prepare(layout)
    assert cert.read_bytes() != before


def test_ports_are_kept_unless_somebody_took_one(layout):
    first = ports.prepare(layout)
    assert ports.prepare(layout) == first
    assert len({first.provider, first.metrics, first.agent, first.support, first.wiki, first.status}) == 6
    with socket.socket() as other:
        other.bind(("127.0.0.1", first.wiki))
        other.listen()
        second = ports.prepare(layout)
    assert second.wiki != first.wiki and second.status == first.status


def test_a_used_front_port_is_a_clear_problem(layout):
    ports.claim_front(layout.port)
    with socket.socket() as other:
        other.bind(("127.0.0.1", layout.port))
        other.listen()
        with pytest.raises(DemoProblem, match=f"Port {layout.port} .* in use") as problem:
            ports.claim_front(layout.port)
    assert "--port" in problem.value.remedy


def test_a_file_is_put_in_place_whole(tmp_path):
    path = tmp_path / "demo.json"
    write(path, "old")
    seen = os.open(path, os.O_RDONLY)
    write(path, json.dumps({"ready": True}))
    assert os.read(seen, 100) == b"old"  # a reader that had it open never sees half of the new one
    os.close(seen)
    assert json.loads(path.read_text()) == {"ready": True}
    assert list(tmp_path.iterdir()) == [path]
