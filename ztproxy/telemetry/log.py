"""The log: one line for each event on standard error, JSON for machines or text for eyes.

Configured once by every program of `service` and by the agent; written through `logging` with fields in
`extra`. Nothing is logged per request: that is what records are for. Values of fields whose name sounds
secret are replaced, and a line can not be broken by what is in it.
"""

import datetime as calendar
import json
import logging
import re
import sys
from collections.abc import Iterator
from typing import Any, Final, Literal, TextIO

MAX_VALUE: Final = 2000
REDACTED: Final = "[redacted]"

#: Fields whose values never appear.
_SECRET_NAME: Final = re.compile(
    r"authorization|cookie|token|secret|passw|credential|assertion|handle|verifier|private"
    r"|(^|_)key$|(auth|enrolment|device|user|time)_code",
    re.I,
)
#: Secrets inside of texts: authorization values, and parameters of addresses.
_SECRET_TEXT: Final = re.compile(
    r"\b(Bearer|Basic|DPoP)\s+[A-Za-z0-9._~+/=-]+"
    r"|\b(code|state|nonce|token|access_token|id_token|refresh_token|client_secret|code_verifier)=[^&\s\"']+",
    re.I,
)
_JWT: Final = re.compile(r"\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]*")
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def configure(
    level: str = "info", format: Literal["json", "text"] = "json", stream: TextIO | None = None
) -> None:
    """Send every logger's lines to `stream` (default: standard error) in one form."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines() if format == "json" else TextLines())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    logging.captureWarnings(True)
    logging.raiseExceptions = False
    for chatty in ("aiohttp.access", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, message, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _scrubbed(record.getMessage()),
        }
        line.update((name, value) for name, value in _fields(record) if name not in line)
        if record.exc_info:
            line["exception"] = _scrubbed(self.formatException(record.exc_info), 10 * MAX_VALUE)
        return json.dumps(line, ensure_ascii=True, default=_text)


class TextLines(logging.Formatter):
    """`TIME LEVEL LOGGER: MESSAGE field=value …`; whatever could break a line is escaped."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and the traceback on lines of its own."""
        fields = "".join(f" {name}={_quoted(value)}" for name, value in _fields(record))
        message = _escaped(_scrubbed(record.getMessage()))
        line = f"{_time(record)} {record.levelname:<7} {record.name}: {message}{fields}"
        if record.exc_info:
            line += "\n" + _scrubbed(self.formatException(record.exc_info), 10 * MAX_VALUE)
        return line


def _time(record: logging.LogRecord) -> str:
    moment = calendar.datetime.fromtimestamp(record.created, calendar.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _fields(record: logging.LogRecord) -> Iterator[tuple[str, Any]]:
    for name, value in vars(record).items():
        if name not in _STANDARD and not name.startswith("_"):
            yield name, REDACTED if _SECRET_NAME.search(name) else _value(value)


def _value(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, dict):
        return {
            str(key): REDACTED if _SECRET_NAME.search(str(key)) else _value(inner)
            for key, inner in list(value.items())[:50]
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [_value(inner) for inner in list(value)[:50]]
    return _text(value)


def _text(value: object) -> str:
    return _scrubbed(str(value))


def _scrubbed(text: str, most: int = MAX_VALUE) -> str:
    """Take known shapes of secrets out of a text and bound it."""
    text = _JWT.sub(REDACTED, _SECRET_TEXT.sub(_kept_name, text[: 2 * most]))
    return text if len(text) <= most else text[:most] + "…"


def _kept_name(found: re.Match[str]) -> str:
    return f"{found[1]} {REDACTED}" if found[1] else f"{found[2]}={REDACTED}"


def _quoted(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=_text)
    plain = re.fullmatch(r"[\w.:/@+-]+", text)
    return text if plain else json.dumps(text)


def _escaped(text: str) -> str:
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)
