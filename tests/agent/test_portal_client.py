"""What the agent makes of answers that are not the portal's."""

import pytest

from ztproxy.agent.portal import Taken
from ztproxy.net.portal import PortalRefused, PortalUnreachable, origin_of, read


def test_an_answer_and_a_problem() -> None:
    assert read(200, b'{"seq":1,"healthy":true,"further":0}', Taken) == Taken(seq=1, healthy=True)
    with pytest.raises(PortalRefused) as caught:
        read(409, b'{"code":"posture-replayed","title":"t","detail":"d"}', Taken)
    assert (caught.value.code, caught.value.status, str(caught.value)) == ("posture-replayed", 409, "d")


@pytest.mark.parametrize("status", [200, 301, 404, 502])
@pytest.mark.parametrize("data", [b"", b"<html>", b"[]", b"\xff", b'{"a":"\xff"}', b"[" * 60000, b'{"seq":'])
def test_what_is_no_answer(status: int, data: bytes) -> None:
    with pytest.raises(PortalUnreachable):
        read(status, data, Taken)


def test_a_success_of_another_shape_is_no_success() -> None:
    with pytest.raises(PortalUnreachable):
        read(200, b'{"seq":"1","healthy":"yes"}', Taken)


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://Portal.Example", "https://portal.example"),
        ("https://portal.example:443/", "https://portal.example"),
        ("https://portal.example:8443", "https://portal.example:8443"),
        ("https://[::1]:8443", "https://[::1]:8443"),
    ],
)
def test_origins_are_spelt_as_browsers_do(url: str, origin: str) -> None:
    assert origin_of(url) == origin
