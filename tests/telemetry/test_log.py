"""One line an event, whatever is in it, and no secret in it."""

import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ztproxy.telemetry.log import configure

Say = Callable[..., str]
JWT = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJjYXJvbCJ9.c2lnbmF0dXJlLW9mLWl0"


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, loud = root.handlers[:], root.level, logging.raiseExceptions
    chatty = {name: logging.getLogger(name).level for name in ("aiohttp.access", "asyncio")}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.raiseExceptions = loud
    logging.captureWarnings(False)
    for name, before in chatty.items():
        logging.getLogger(name).setLevel(before)


def say(form: str, message: str, level: str = "info", **extra: Any) -> str:
    stream = io.StringIO()
    configure(level, form, stream)  # type: ignore[arg-type]
    logging.getLogger("ztproxy.test").info(message, extra=extra)
    return stream.getvalue()


def test_json_lines_hold_time_level_logger_message_and_fields() -> None:
    line = json.loads(say("json", "listening", address="127.0.0.1:1", workers=2, ok=True, request_id="ab12"))
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info",
        "logger": "ztproxy.test",
        "message": "listening",
        "address": "127.0.0.1:1",
        "workers": 2,
        "ok": True,
        "request_id": "ab12",
    }


def test_text_lines() -> None:
    line = say("text", "listening", address="127.0.0.1:1", words="two words")
    assert line.endswith(' INFO    ztproxy.test: listening address=127.0.0.1:1 words="two words"\n')


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_line_can_not_be_broken(form: str) -> None:
    text = say(form, "one\ntwo\x1b[31m\r\u2028", path="/a\nb\x1b]0;x\x07", nested={"k": ["\n"]})
    assert text.count("\n") == 1 and text.endswith("\n")
    assert not [char for char in text[:-1] if not char.isprintable()]


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize(
    ("message", "extra"),
    [
        ("x", {"client_secret": "hunter2"}),
        ("x", {"Authorization": "hunter2"}),
        ("x", {"set_cookie": "hunter2"}),
        ("x", {"id_token": "hunter2"}),
        ("x", {"password": "hunter2"}),
        ("x", {"private_key": "hunter2"}),
        ("x", {"key": "hunter2"}),
        ("x", {"enrolment_code": "hunter2"}),
        ("x", {"headers": {"Cookie": "hunter2"}}),
        ("x", {"url": "https://a.example/cb?code=hunter2&state=hunter2"}),
        ("failed: Authorization: Bearer hunter2", {}),
        ("https://a.example/?access_token=hunter2 failed", {}),
        (f"refused {JWT.replace('c2ln', 'hunter2')}", {}),
    ],
)
def test_secrets_do_not_appear(form: str, message: str, extra: dict[str, Any]) -> None:
    text = say(form, message, **extra)
    assert "hunter2" not in text and "[redacted]" in text


@pytest.mark.parametrize("form", ["json", "text"])
def test_refusal_codes_and_public_names_do_appear(form: str) -> None:
    text = say(form, "refused", code="access-denied", keyring="main", session="ses_abc")
    assert "access-denied" in text and "main" in text and "ses_abc" in text


def test_exceptions_are_one_field_and_scrubbed() -> None:
    stream = io.StringIO()
    configure("info", "json", stream)
    try:
        raise ValueError("Bearer hunter2")
    except ValueError:
        logging.getLogger("ztproxy.test").exception("it broke")
    line = json.loads(stream.getvalue())
    assert "ValueError" in line["exception"] and "hunter2" not in stream.getvalue()


def test_long_values_and_strange_objects_are_bounded() -> None:
    class Strange:
        def __str__(self) -> str:
            return "s" * 100_000

    assert len(say("json", "m" * 100_000, long="v" * 100_000, strange=Strange())) < 10_000


def test_the_level_holds_and_configuring_twice_does_not_double() -> None:
    assert say("json", "x", level="warning") == ""
    configure("info", "json", io.StringIO())
    assert say("json", "x").count("\n") == 1
