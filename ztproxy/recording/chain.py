"""Following the chain of a log line by line, and naming the first record that breaks it.

Called by `recording.verify`. Works on a stream with two lines of lookahead: when line k and its successor
disagree, the one whose hash its own successor (or the signed checkpoint) confirms is genuine, and so the
other one was altered.
"""

from collections import deque
from collections.abc import Iterator
from itertools import islice

from msgspec import Struct

from ztproxy.recording import note
from ztproxy.recording.files import Text, file_name, file_number
from ztproxy.recording.line import Line, Malformed, digest, parse, parse_source
from ztproxy.recording.note import Checkpoint
from ztproxy.recording.problem import Kind, Problem


class Found(Struct, frozen=True):
    """A line that could be read."""

    text: Text
    line: Line
    hash: bytes


class Chain:
    """One pass over a log. `problem` is the first finding, `count` the records verified before it."""

    def __init__(self, origin: str | None, sealed: Checkpoint | None) -> None:
        self.sealed = sealed
        self.count = 0
        self.problem: Problem | None = None
        self._head = note.first_hash(origin) if origin else None
        self._last: Found | None = None
        self._unchecked: Found | None = None  # its source is not yet looked at
        self._sources: dict[str, int] = {}
        self._missing_file = ""

    def follow(self, texts: Iterator[Text]) -> Iterator[Found]:
        """Yield the records that stand in their place on the chain, up to the first problem."""
        window: deque[Text] = deque(islice(texts, 3))
        while window and self.problem is None:
            text = window.popleft()
            found = _read(text)
            if found is None or not self._fits(found):
                self._name(text, found, window, texts)
                return
            window.extend(islice(texts, 1))
            self._accept(found)
            if self.problem is None:
                yield found
        if self.problem is None:
            self._end()

    def report_missing_file(self, name: str) -> None:
        """Say that the lines end because a file is not there."""
        self._missing_file = name

    # what is in its place

    def _fits(self, found: Found) -> bool:
        if not found.text.complete or found.line.n != self.count + 1:
            return False
        return self._head is None or found.line.prev == self._head.hex()

    def _accept(self, found: Found) -> None:
        sealed = self.sealed
        number = found.line.n
        if sealed and number == sealed.count and found.hash != sealed.head:
            self._report(
                "altered",
                number,
                found.text,
                "is not the one the signed checkpoint ends with; if the chain was made anew, an earlier"
                " record was altered too",
            )
        elif sealed and number == sealed.count and not _at(found.text, sealed):
            where = f"{sealed.file} at byte {sealed.length}"
            self._report("garbage", number, found.text, f"does not end where the checkpoint says: {where}")
        elif self._check_source():
            self.count, self._head, self._last = number, found.hash, found
            self._unchecked = found
            if sealed and number == sealed.count:
                self._check_source()

    def _check_source(self) -> bool:
        """Check where the last record came from, now that its hash is known to be confirmed."""
        found, self._unchecked = self._unchecked, None
        if found is None or self._continues(found.line):
            return True
        self.count = found.line.n - 1
        self._report(
            "source", found.line.n, found.text, f"from {found.line.src} does not follow the one before"
        )
        return False

    def _continues(self, line: Line) -> bool:
        try:
            journal, first, last = parse_source(line.src)
        except Malformed:
            return False
        before = self._sources.get(journal, 0)
        self._sources[journal] = last
        return first == before + 1

    # what is not

    def _name(self, text: Text, found: Found | None, window: deque[Text], rest: Iterator[Text]) -> None:
        """Find out what is wrong at `text`, where record `count + 1` should stand."""
        expected = self.count + 1
        following = _read(window[0]) if window else None
        if not text.complete and not (found is None and window):
            self._name_cut(text, found)
        elif found is None:
            self._name_unreadable(text, following)
        elif found.line.n == expected:
            self._name_altered(found, following)
        elif self._head is None or found.line.prev == self._head.hex():
            self._report("altered", expected, text, f"says of itself to be record {found.line.n}")
        elif found.line.n <= self.count:
            self._report("duplicate", found.line.n, text, "stands here again")
        else:
            self._name_displaced(found, tuple(window), rest)

    def _name_cut(self, text: Text, found: Found | None) -> None:
        """A last line without a line break: cut off, altered at its end, or being written."""
        expected, sealed = self.count + 1, self.sealed
        if sealed and expected <= sealed.count:
            whole = text.file == file_number(sealed.file) and text.end >= sealed.length
            kind: Kind = "altered" if whole else "truncated"
            self._report(kind, expected, text, "is altered at its end" if whole else "is cut off")
        elif not self._may_be_unfinished(text.data):
            self._report("garbage", 0, text, f"what follows record {self.count} is no record")

    def _may_be_unfinished(self, data: bytes) -> bool:
        """Say whether this can be the next line in the middle of being written."""
        head = self._head.hex() if self._head else ""
        start = b'{"n":%d,"prev":"%s","src":"' % (self.count + 1, head.encode())
        return data.startswith(start) or start.startswith(data)

    def _name_unreadable(self, text: Text, following: Found | None) -> None:
        expected, sealed = self.count + 1, self.sealed
        inserted = following is not None and self._fits(following)
        if inserted or (sealed and self.count >= sealed.count):
            self._report("garbage", 0, text, f"what follows record {self.count} is no record")
        else:
            self._report("altered", expected, text, "is not readable")

    def _name_altered(self, found: Found, following: Found | None) -> None:
        """This record and the one before disagree: blame the one that nobody confirms."""
        before = self._last
        if before is None or self._confirmed(before, None):
            self._report("altered", found.line.n, found.text, "does not follow what stands before it")
        elif self._confirmed(found, following):
            self.count -= 1
            self._report(
                "altered", before.line.n, before.text, "has not the hash that the record after it knows"
            )
        else:
            self._report("altered", found.line.n, found.text, "names another record before it")

    def _confirmed(self, found: Found, following: Found | None) -> bool:
        sealed = self.sealed
        if sealed and found.line.n == sealed.count:
            return found.hash == sealed.head
        return following is not None and following.line.prev == found.hash.hex()

    def _name_displaced(self, found: Found, window: tuple[Text, ...], rest: Iterator[Text]) -> None:
        """A later record stands here. Moved, if the expected one is further down; else removed."""
        expected = self.count + 1
        for text in (*window, *rest):
            other = _read(text)
            if other is not None and other.line.n == expected:
                place = f"{file_name(text.file)}:{text.number}"
                self._report(
                    "reordered", expected, found.text, f"stands at {place}, record {found.line.n} here"
                )
                return
        until = found.line.n - 1
        many = f"records {expected} to {until} were removed" if until > expected else "was removed"
        self._report("missing", expected, found.text, f"{many}; record {found.line.n} stands here")

    def _end(self) -> None:
        """The lines are over. Were these all?"""
        if not self._check_source():
            return
        sealed, last = self.sealed, self._last
        if sealed and self.count < sealed.count:
            expected = self.count + 1
            lost = f"the log ends here, {sealed.count - self.count} of {sealed.count} records are gone"
            if self._missing_file:
                self.problem = Problem("file-missing", self._missing_file, expected, explanation=lost)
            else:
                file, line = (file_name(last.text.file), last.text.number + 1) if last else ("", 0)
                self.problem = Problem("truncated", file, expected, line, lost)
        elif self._missing_file:
            self.problem = Problem("file-missing", self._missing_file, explanation="a file is gone")

    def _report(self, kind: Kind, record: int, text: Text, explanation: str) -> None:
        self.problem = Problem(kind, file_name(text.file), record, text.number, explanation)


def _read(text: Text) -> Found | None:
    try:
        return Found(text, parse(text.data), digest(text.data))
    except Malformed:
        return None


def _at(text: Text, sealed: Checkpoint) -> bool:
    return file_name(text.file) == sealed.file and text.end == sealed.length
