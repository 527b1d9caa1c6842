"""The pipeline: a certificate, one application, nothing else."""

import json
import subprocess

import pytest


def test_it_reaches_its_application_as_itself(demo):
    answer = demo.as_workload(demo.url("status", "/status"))
    assert answer.status == 200
    assert answer.json["caller"] == demo.facts["workload"]["id"]


def test_it_deploys(demo):
    order = json.dumps({"service": "orders", "version": "2.0.0"})
    made = demo.as_workload("--json", order, demo.url("status", "/deployments"))
    assert made.status == 201 and made.json["by"] == demo.facts["workload"]["id"]


@pytest.mark.parametrize("app", ["support", "wiki"])
def test_nothing_else(demo, app):
    before = demo.arrived(app)
    answer = demo.as_workload(demo.url(app))
    assert (answer.status, answer.json["code"]) == (403, "access-denied")
    assert demo.arrived(app) == before


def test_without_its_certificate_it_is_nobody(demo):
    before = demo.arrived("status")
    answer = demo.curl(demo.url("status", "/status"))
    assert (answer.status, answer.json["code"]) == (401, "login-required")
    assert demo.arrived("status") == before


def test_a_header_makes_nobody_anybody(demo):
    claims = ["Zt-Principal: " + demo.facts["workload"]["id"], "Zt-Assertion: a.b.c", "Client-Cert: :AA==:"]
    before = demo.arrived("status")
    answer = demo.curl(*(word for claim in claims for word in ("--header", claim)), demo.url("status"))
    assert answer.status == 401
    assert demo.arrived("status") == before
    own = demo.as_workload("--header", "Zt-Principal: spiffe://evil.example/x", demo.url("status", "/status"))
    assert own.json["caller"] == demo.facts["workload"]["id"]


@pytest.fixture
def other(tmp_path, demo):
    """A certificate with the very same name, of an authority of somebody else's, made with openssl."""
    name, key, cert = demo.facts["workload"]["id"], tmp_path / "key.pem", tmp_path / "cert.pem"
    openssl = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    names = ["-subj", "/CN=ztproxy demo workloads", "-addext", f"subjectAltName=URI:{name}", "-days", "2"]
    use = ["-addext", "extendedKeyUsage=clientAuth"]
    command = [*openssl, *names, *use, "-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True)
    return str(cert), str(key)


@pytest.mark.parametrize("version", ["--tlsv1.3", "--tls-max=1.2"])
def test_the_handshake_of_another_authority_fails(demo, other, version):
    before = demo.arrived("status")
    words = version.replace("=", " ").split()
    answer = demo.curl(*words, "--cert", other[0], "--key", other[1], demo.url("status", "/status"))
    assert answer.status == 0
    assert answer.code in (35, 52, 56)  # curl: no handshake; in 1.3 the client learns it at the first read
    assert demo.arrived("status") == before


def test_unknown_names_are_not_served(demo):
    port = demo.facts["portal"].rpartition(":")[2]
    nowhere = demo.curl(
        "--insecure", "--resolve", f"other.localhost:{port}:127.0.0.1", f"https://other.localhost:{port}/"
    )
    assert nowhere.status in (0, 421)
    other_host = demo.as_workload("--header", "Host: wiki.ztproxy.localhost", demo.url("status"))
    assert other_host.status == 421
