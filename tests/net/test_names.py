"""Names below localhost are this machine; everything else is the system's to say."""

import pytest

from ztproxy.net.names import Resolver


@pytest.mark.parametrize("name", ["localhost", "portal.ztproxy.localhost", "A.LocalHost", "x.localhost."])
async def test_names_below_localhost_are_loopback(name):
    found = await Resolver().resolve(name, 8443)
    assert [(one["host"], one["port"], one["hostname"]) for one in found] == [("127.0.0.1", 8443, name)]


@pytest.mark.parametrize("name", ["notlocalhost", "localhost.example.invalid"])
async def test_other_names_are_not(name):
    with pytest.raises(OSError):
        await Resolver().resolve(name, 8443)
