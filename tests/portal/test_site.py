"""Ways back as a property: whatever is asked for, the answer is a place of ours."""

import re
from urllib.parse import urlsplit

from hypothesis import given
from hypothesis import strategies as st

from ztproxy.portal.journey import MOST_RESTARTS, journey_of
from ztproxy.portal.site import Site

HOSTS = ["portal.example", "support.example"]
SITE = Site(host=HOSTS[0], port=8443, title="t", hosts=frozenset(HOSTS))
SCRAPS = [
    "https:",
    "http:",
    "//",
    "8443",
    "443",
    "%2f",
    "..",
    "javascript:",
    "evil.example",
    "portal.example",
    "support.example",
]
pieces = st.sampled_from([*SCRAPS, *"/\\@:?#\t\r\n .x\x00é"])
texts = st.one_of(st.text(max_size=60), st.lists(pieces, max_size=10).map("".join))


@given(texts, st.sampled_from(HOSTS))
def test_every_way_back_is_ours(text, host):
    back = SITE.way_back(text, host)
    parts = urlsplit(str(back))
    assert (parts.scheme, parts.hostname, parts.port) == ("https", back.host, 8443)
    assert back.host in HOSTS and parts.username is None
    assert re.fullmatch(r"/(?![/\\])[!-~]*", back.path) and "\\" not in back.path
    assert SITE.way_back(str(back), "portal.example") == back, "read again it is the same"


@given(st.dictionaries(st.sampled_from(["rd", "flow", "restarts"]), texts))
def test_every_journey_is_bounded(query):
    journey = journey_of(query, SITE, "support.example")
    assert re.fullmatch(r"|[0-9a-f]{64}", journey.flow)
    steps = 0
    while journey is not None:
        journey, steps = journey.over_again(), steps + 1
    assert steps <= MOST_RESTARTS + 1


def test_the_default_port_is_not_written():
    site = Site(host="portal.example", port=443, title="t", hosts=frozenset(HOSTS))
    assert site.origin == "https://portal.example"
    assert str(site.way_back("https://support.example/x", "portal.example")) == "https://support.example/x"
    assert (
        str(site.way_back("https://support.example:443/x", "portal.example")) == "https://support.example/x"
    )
    assert site.way_back("https://support.example:8443/x", "portal.example") == site.home
