"""What verification can find wrong, in words for programs and for people."""

from typing import Literal

from msgspec import Struct

Kind = Literal[
    "altered",  # the record's bytes are not the ones that were sealed
    "missing",  # the record was removed
    "reordered",  # the record stands in another place
    "duplicate",  # the record stands here a second time
    "truncated",  # the log ends before the record, or within it
    "garbage",  # bytes that are no record
    "source",  # the record does not follow the one before from the same journal
    "file-missing",
    "checkpoint-missing",
    "checkpoint-altered",
    "wrong-key",
    "key-missing",
    "key-altered",
]


class Problem(Struct, frozen=True):
    """One finding."""

    kind: Kind
    file: str = ""
    record: int = 0  # number of the record concerned, 0 when it is none
    line: int = 0  # in the file, 0 when it is none
    explanation: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        what = f"record {self.record} {self.kind}" if self.record else self.kind
        return f"{what} ({where}): {self.explanation}" if where else f"{what}: {self.explanation}"
