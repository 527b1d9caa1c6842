"""Which TLS context a name gets."""

import ssl
from pathlib import Path

import pytest
from gateway_fakes import PORTAL, ROUTE
from gateway_pki import Authority

from ztproxy.net.certificates import read_bundle
from ztproxy.net.tls import KeyPair, NoNames, ServerContexts, dns_names, modes_of, server_context


def pair(authority: Authority, *names: str) -> KeyPair:
    files = authority.server(*names)
    return KeyPair(files.certificate, files.key)


def contexts(authority: Authority, modes: dict[str, str] | None = None, *names: str) -> ServerContexts:
    bundle = read_bundle("devices", "device", authority.file)
    return ServerContexts([pair(authority, *names)], modes or {}, [bundle])  # type: ignore[arg-type]


def test_names(authority: Authority) -> None:
    assert dns_names(authority.server("App.Example", "*.apps.example").certificate) == (
        "app.example",
        "*.apps.example",
    )
    with pytest.raises(NoNames):
        dns_names(authority.client("spiffe://a/b", common_name="x").certificate)
    with pytest.raises(NoNames):
        dns_names(authority.file)


def test_a_wildcard_covers_one_label(authority: Authority) -> None:
    found = contexts(authority, {}, "app.example", "*.apps.example")
    for name in ("app.example", "a.apps.example"):
        assert found.choose(name) is not None
    for name in ("other.example", "apps.example", "a.b.apps.example", "example", "x.app.example", ""):
        assert found.choose(name) is None


def test_an_exact_name_goes_before_a_wildcard(authority: Authority) -> None:
    found = ServerContexts([pair(authority, "*.example"), pair(authority, "a.example")], {}, [])
    assert found.choose("a.example") is not found.choose("b.example")


def test_modes(authority: Authority) -> None:
    modes = {"off.example": "off", "optional.example": "optional", "required.example": "required"}
    found = contexts(authority, modes, "*.example")
    verify = {
        name: getattr(found.choose(f"{name}.example"), "verifies", None) for name in ("off", "optional")
    }
    assert verify == {"off": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL}
    required = found.choose("required.example")
    assert required is not None
    assert required.verifies is ssl.CERT_REQUIRED
    unknown = found.choose("unknown.example")
    assert unknown is not None
    assert unknown.verifies is ssl.CERT_NONE


def test_settings_of_a_context(authority: Authority) -> None:
    context = server_context(pair(authority, "a.example"), "off", [])
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.num_tickets == 0
    assert context.options & ssl.OP_NO_TICKET


def test_modes_of_hosts() -> None:
    def route(host: str, prefix: str, mode: str):
        return ROUTE.replaced(host=host, prefix=prefix, client_certificate=mode)

    portal = PORTAL.replaced(host="portal.example", client_certificate="optional")
    modes = modes_of(
        [
            route("a", "/", "required"),
            route("a", "/x/", "required"),
            route("b", "/", "off"),
            route("b", "/x/", "required"),
            route("c", "/", "off"),
            portal,
            portal.replaced(host="a"),
        ]
    )
    assert modes == {"a": "required", "b": "optional", "c": "off", "portal.example": "optional"}


def test_the_host_of_connectors_believes_their_authority_alone_and_no_other_host_does(
    authority: Authority, tmp_path: Path
) -> None:
    theirs = Authority(tmp_path, "connectors")
    bundles = [
        read_bundle("devices", "device", authority.file),
        read_bundle("connectors", "connector", theirs.file),
    ]
    carries = ROUTE.replaced(host="connect.example", prefix="/", carries=True)
    modes = modes_of([ROUTE.replaced(host="app.example", client_certificate="required"), carries])
    found = ServerContexts([pair(authority, "*.example")], modes, bundles)
    connect, app = found.choose("connect.example"), found.choose("app.example")
    assert connect is not None
    assert app is not None
    assert connect.minimum_version is ssl.TLSVersion.TLSv1_3
    assert connect.verifies is app.verifies is ssl.CERT_REQUIRED
    assert connect.get_ca_certs(binary_form=True) == [theirs.der]
    assert app.get_ca_certs(binary_form=True) == [authority.der]
    assert [bundle.name for bundle in found.believed("connect.example")] == ["connectors"]
    for host in ("app.example", "other.example", ""):
        assert [bundle.name for bundle in found.believed(host)] == ["devices"]
    with pytest.raises(ValueError, match="nobody vouches for connectors"):
        ServerContexts([pair(authority, "*.example")], modes, bundles[:1])


def test_a_missing_file_is_an_error_now_and_not_later(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        ServerContexts([KeyPair(tmp_path / "none.pem", tmp_path / "none.key")], {}, [])
