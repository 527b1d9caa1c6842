"""A connector's own list: exactly what it says, in one spelling."""

import pytest

from ztproxy.connector.allowed import Allowed, leads_astray

LIST = Allowed(["http://127.0.0.1:9001", "https://crm.internal", "tcp://10.0.0.5:5432", "unix:/run/app.sock"])


@pytest.mark.parametrize(
    ("scheme", "host", "port"),
    [
        ("http", "127.0.0.1", 9001),
        ("https", "crm.internal", 443),
        ("http", "10.0.0.5", 5432),
        ("https", "10.0.0.5", 5432),
        ("unix", "/run/app.sock", 0),
    ],
)
def test_what_is_on_the_list(scheme: str, host: str, port: int) -> None:
    assert LIST.permits(scheme, host, port)


@pytest.mark.parametrize(
    ("scheme", "host", "port"),
    [
        ("https", "127.0.0.1", 9001),
        ("http", "127.0.0.1", 9002),
        ("http", "127.0.0.2", 9001),
        ("http", "localhost", 9001),
        ("http", "127.1", 9001),
        ("http", "2130706433", 9001),
        ("http", "127.0.0.1 ", 9001),
        ("http", "127.0.0.1\x00.example", 9001),
        ("http", "::ffff:127.0.0.1", 9001),
        ("https", "CRM.internal", 443),
        ("https", "crm.internal.", 443),
        ("https", "crm.internal@10.0.0.1", 443),
        ("http", "crm.internal", 443),
        ("tcp", "10.0.0.5", 5432),
        ("unix", "10.0.0.5", 5432),
        ("unix", "/run/../run/app.sock", 0),
        ("unix", "/run/app.sock", 1),
        ("http", "/run/app.sock", 0),
        ("http", "169.254.169.254", 80),
    ],
)
def test_what_is_not(scheme: str, host: str, port: int) -> None:
    allowed = scheme == "tcp" and LIST.permits(scheme, host, port)  # no proxy can ask for it: wire.carrying
    assert allowed or not LIST.permits(scheme, host, port)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "127.0.0.1:9001",
        "ftp://h:1",
        "tcp://h",
        "http://",
        "http://h:0",
        "http://h:70000",
        "http://u:p@h",
        "http://h/path",
        "http://h?q",
        "http://h#f",
        "http://1.2.3",
        "http://a..b",
        "unix:app.sock",
        "unix:/a\0b",
        "unix:/" + "a" * 108,
    ],
)
def test_what_is_no_entry_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="write http://"):
        Allowed([text])


@pytest.mark.parametrize(
    ("host", "address", "astray"),
    [
        ("crm.internal", "10.0.0.7", False),
        ("localhost", "127.0.0.1", False),
        ("crm.internal", "169.254.169.254", True),
        ("crm.internal", "::ffff:169.254.169.254", True),
        ("crm.internal", "fe80::1%eth0", True),
        ("crm.internal", "0.0.0.0", True),
        ("crm.internal", "::", True),
        ("crm.internal", "224.0.0.1", True),
        ("169.254.0.9", "169.254.0.9", False),
        ("crm.internal", "fd00:ec2::254", True),
        ("crm.internal", "fd20:ce::254", True),
        ("crm.internal", "100.100.100.200", True),
        ("crm.internal", "168.63.129.16", True),
        ("crm.internal", "192.0.0.192", True),
        ("crm.internal", "64:ff9b::a9fe:a9fe", True),
        ("crm.internal", "2002:a9fe:a9fe::1", True),
        ("crm.internal", "::169.254.169.254", True),
        ("crm.internal", "64:ff9b::a00:7", False),
        ("crm.internal", "fd00:ec2::1", False),
        ("100.100.100.200", "100.100.100.200", False),
        ("crm.internal", "::1", False),
    ],
)
def test_names_do_not_lead_to_addresses_of_a_link(host: str, address: str, astray: bool) -> None:
    assert leads_astray(host, address) is astray
