"""What a reader of a journal remembers of the segment it reads: passages, and what records go on with.

Used by `recording.journal`. Whoever writes a journal may have been taken over: what is kept has a bound, and
what was forgotten is read again from where it lies.
"""

import os
from typing import Final, final

from ztproxy.recording.entry import Ending
from ztproxy.recording.segment import HEAD, JOINED, LONGEST, PASSAGE, Format

KEPT: Final = 4096  # passages, and pairs of them

_HEAD: Final = HEAD.size
_JOINED: Final = JOINED.size
_PASSAGE: Final = PASSAGE  # where compiled code finds them without looking up a name
_LONGEST: Final = LONGEST
_references: Final = JOINED.unpack


@final
class Passages:
    """The passages of one segment that were met last, by where they lie, and what records go on with."""

    __slots__ = ("endings", "in_a_row", "known", "segment")

    def __init__(self) -> None:
        self.segment = 0
        self.in_a_row = 0  # passages since the last record
        self.known: dict[int, bytes] = {}
        self.endings: dict[bytes, Ending] = {}  # by two references, as records have them

    def turn_to(self, segment: int) -> None:
        """Forget those of other segments."""
        if segment != self.segment:
            self.segment, self.in_a_row, self.known, self.endings = segment, 0, {}, {}

    def meet(self, at: int, text: bytes) -> bool:
        """Take in a passage; False when there are more of them than a record needs."""
        self.in_a_row += 1
        self._keep(at, text)
        return self.in_a_row <= 2

    def ending(self, references: bytes, descriptor: int, form: Format, before: int) -> Ending | None:
        """Return what records go on with that refer so.

        None when there is no such thing in the segment before them. Raises OSError.
        """
        if len(references) < _JOINED:
            return None
        first, second = _references(references)
        caller = self._passage(descriptor, form, first, before)
        decision = self._passage(descriptor, form, second, before)
        if caller is None or decision is None or len(caller) + len(decision) > _LONGEST:
            return None
        if len(self.endings) >= KEPT:
            self.endings.clear()
        ending = self.endings[references] = Ending(caller, decision)
        return ending

    def _keep(self, at: int, text: bytes) -> None:
        """Remember a passage, if a record can go on with it."""
        if len(text) < _LONGEST:
            if len(self.known) >= KEPT:
                self.known.clear()
            self.known[at] = text

    def _passage(self, descriptor: int, form: Format, at: int, before: int) -> bytes | None:
        """Return a passage; one that is not remembered is read. None when there is none."""
        if at >= before:
            return None
        if (text := self.known.get(at)) is not None:
            return text
        head = os.pread(descriptor, _HEAD, at) if at >= form.start else b""
        if len(head) < _HEAD:
            return None
        check, field = form.head_at(head, 0)
        size = field - _PASSAGE
        fits = 0 < size <= min(before - at - _HEAD, _LONGEST)
        text = os.pread(descriptor, size, at + _HEAD) if fits else b""
        if not text or form.sum_of(text, (self.segment << 2) + (_PASSAGE >> 30)) != check:
            return None
        self._keep(at, text)
        return text
