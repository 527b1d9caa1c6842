"""Verdicts of the fuzzing client, compared."""

from bench.autobahn import Forwarder, differences


def test_a_pass_that_is_less_strict_is_timing_and_everything_else_a_difference():
    direct = {
        "1": ["OK", "OK", 1000],
        "2": ["OK", "OK", None],
        "3": ["OK", "OK", 1000],
        "4": ["OK", "OK", None],
    }
    through = {"1": ["OK", "OK", 1000], "2": ["NON-STRICT", "OK", None], "3": ["OK", "WRONG CODE", 1001]}
    assert differences(direct, through) == (["3", "4"], ["2"])
    failed = {**direct, "1": ["FAILED", "OK", 1000]}
    assert differences(direct, failed) == (["1"], [])


def test_the_forwarder_changes_who_asks_and_nothing_else():
    head = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:9\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n"
    dressed = Forwarder(8443)._dressed(head).split(b"\r\n")
    assert dressed[:3] == [b"GET / HTTP/1.1", b"Host: localhost:8443", b"Origin: https://localhost:8443"]
    assert dressed[3].startswith(b"Cookie: __Host-ztproxy=")
    assert dressed[4:] == [b"Upgrade: websocket", b"Sec-WebSocket-Key: k", b"", b""]
