"""Addresses a provider may have, whatever DNS says."""

import pytest
from aiohttp.abc import AbstractResolver

from ztproxy.trust.identity.fetch import GuardedResolver, check_url, http_session
from ztproxy.trust.identity.provider import SignInRefused


class FixedResolver(AbstractResolver):
    def __init__(self, *addresses):
        self.addresses = addresses

    async def resolve(self, host, port=0, family=0):
        return [
            {"hostname": host, "host": a, "port": port, "family": family, "proto": 0, "flags": 0}
            for a in self.addresses
        ]

    async def close(self):
        pass


@pytest.mark.parametrize(
    ("answers", "left"),
    [
        (["10.0.0.1"], ["10.0.0.1"]),
        (["169.254.169.254", "10.0.0.1"], ["10.0.0.1"]),
        (["2001:db8::1", "fe80::1%2"], ["2001:db8::1"]),
    ],
)
async def test_forbidden_addresses_are_left_out(answers, left):
    found = await GuardedResolver(FixedResolver(*answers)).resolve("idp.example", 443)
    assert [result["host"] for result in found] == left


@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "fd00:ec2::254", "fe80::a9fe:a9fe", "::ffff:169.254.169.254", "0.0.0.0", "224.0.0.1"],
)
async def test_nothing_left_is_an_error(address):
    with pytest.raises(OSError, match="no permitted address"):
        await GuardedResolver(FixedResolver(address)).resolve("idp.example", 443)


async def test_localhost_is_loopback():
    with pytest.raises(OSError, match="no permitted address"):
        await GuardedResolver(FixedResolver("10.0.0.1")).resolve("localhost", 80)


@pytest.mark.parametrize(
    "url",
    [
        "https://idp.example/x?y=1",
        "https://10.0.0.1:8443/",
        "http://127.0.0.1:5000/x",
        "http://[::1]:5000/",
        "http://localhost/",
    ],
)
def test_urls_that_may_be_asked(url):
    assert check_url(url, "x") == url


@pytest.mark.parametrize(
    "url",
    [
        "http://idp.example/",
        "http://localhost.evil.example/",
        "http://127.0.0.1@evil.example/",
        "https://evil.example\\@idp.example/",
        "https://idp.example/\r\nHost: x",
        "https:///path",
        "https://idp.example/" + "a" * 2048,
        "//idp.example",
        "",
        None,
    ],
)
def test_urls_that_may_not(url):
    with pytest.raises(SignInRefused):
        check_url(url, "x")


async def test_the_session_keeps_no_cookies_and_asks_no_proxy(monkeypatch):
    async with http_session() as http:
        assert not http.trust_env
        assert type(http.cookie_jar).__name__ == "DummyCookieJar"
