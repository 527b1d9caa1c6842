"""A recording room for tests: directories, a clock, who is alive, and records to write."""

import json
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

from xxhash import xxh3_64_intdigest

from ztproxy.administrator.audit import Audit
from ztproxy.model.record import DecisionRecord, OutcomeRecord, SessionRecord
from ztproxy.recording.journal import JournalWriter, segment_path
from ztproxy.recording.sealer import Sealer
from ztproxy.recording.segment import FIRST, Format

START = 1_800_000_000_000


class OldWriter:
    """Writes journals of a format before, each entry a record."""

    def __init__(
        self, directory: Path, name: str, *, form: Format = FIRST, segment_size: int = 1 << 16, **_: Any
    ) -> None:
        self._directory, self._name, self._form, self._size = directory, name, form, segment_size
        self._segment, self._next = 0, 1
        self._roll()

    def append(self, payload: bytes) -> None:
        head = self._form.head.size
        if self._end + head + len(payload) > self._size:
            self._roll()
        length = len(payload).to_bytes(4, sys.byteorder)
        if self._form is FIRST:
            entry = length + zlib.crc32(payload).to_bytes(4, sys.byteorder)
        else:
            entry = xxh3_64_intdigest(payload).to_bytes(8, sys.byteorder) + length
        with self._path.open("r+b") as file:
            file.seek(self._end)
            file.write(entry + payload)
        self._end += (head + len(payload) + 3) // 4 * 4
        self._next += 1

    def _roll(self) -> None:
        self._segment += 1
        self._path = segment_path(self._directory, self._name, self._segment, self._form)
        head = self._form.magic + struct.pack("=QI", self._next, 0x01020304)
        head += zlib.crc32(head).to_bytes(4, sys.byteorder)
        self._path.write_bytes(head.ljust(self._size, b"\0"))
        self._end = self._form.start


class Room:
    """Directories, a clock and who is alive."""

    def __init__(self, root: Path) -> None:
        self.directory = root / "recordings"
        self.journals = root / "journals"
        self.key = root / "keys" / "log.pem"
        self.journals.mkdir(exist_ok=True)
        self.ms = START
        self.alive: set[str] = set()
        self._sealers: list[Sealer] = []

    def now(self) -> int:
        self.ms += 1
        return self.ms

    def sealer(self, **options: Any) -> Sealer:
        options = {"origin": "test/node", "now": self.now, "alive": lambda: self.alive, **options}
        sealer = Sealer(self.directory, self.journals, self.key, **options)
        self._sealers.append(sealer)
        return sealer

    def writer(self, name: str = "w0-1-1", **options: Any) -> JournalWriter:
        self.alive.add(name)
        return JournalWriter(self.journals, name, **{"segment_size": 1 << 16, **options})

    def old_writer(self, name: str = "w0-1-1", **options: Any) -> OldWriter:
        self.alive.add(name)
        return OldWriter(self.journals, name, **options)

    def audit(self, name: str = "w0-1-1", **options: Any) -> Audit:
        return Audit(self.writer(name, **options))

    def lines(self) -> list[bytes]:
        found: list[bytes] = []
        for path in sorted(self.directory.glob("log-*.jsonl")):
            found += path.read_bytes().splitlines()
        return found

    def sources(self) -> list[str]:
        return [json.loads(line)["src"] for line in self.lines()]

    def ids(self) -> list[str]:
        return [json.loads(line)["record"].get("id", "") for line in self.lines()]

    def close(self) -> None:
        for sealer in self._sealers:
            sealer.close()


def decision(number: int, **changes: Any) -> DecisionRecord:
    values: dict[str, Any] = {
        "id": f"{number:032x}",
        "at": START + number * 10,
        "allow": True,
        "decided": "permit",
        "principal": "User::demo:carol",
        "name": "Carol",
        "session": "ses_carol",
        "device": "dev_laptop",
        "resource": "Route::support",
        "action": "GET",
        "host": "support.example",
        "path": f"/tickets/{number}",
        "policies": ("support-team",),
    }
    return DecisionRecord(**{**values, **changes})


def outcome(number: int, **changes: Any) -> OutcomeRecord:
    values: dict[str, Any] = {
        "id": f"{number:032x}",
        "at": START + number * 10 + 5,
        "session": "ses_carol",
        "status": 200,
        "sent": 100,
        "duration": 5,
    }
    return OutcomeRecord(**{**values, **changes})


def started(**changes: Any) -> SessionRecord:
    values: dict[str, Any] = {
        "id": "ses_carol",
        "at": START,
        "event": "started",
        "principal": "User::demo:carol",
        "name": "Carol",
        "session": "ses_carol",
    }
    return SessionRecord(**{**values, **changes})
