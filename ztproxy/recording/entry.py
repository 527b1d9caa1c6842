"""What lies in journals: records, and records that go on with passages, as `recording.journal` reads them."""

from typing import Final, final

#: What the catalogue needs of who asked, and what was decided:
#: allow, decided, principal, name, session, device.
Said = tuple[bool, str, str, str, str, str]


@final
class Ending:
    """Two passages, members of a JSON object without braces: who asked, and what was decided.

    `recording.admit` notes what they are found to say, when it has looked at them for the first time.
    """

    __slots__ = ("caller", "decision", "said", "text")

    def __init__(self, caller: bytes, decision: bytes) -> None:
        self.caller: Final = caller
        self.decision: Final = decision
        self.text: Final = b",%b,%b}" % (caller, decision)
        self.said: Said | None = None


@final
class Joined:
    """A record of a decision: its beginning, and what it goes on with."""

    __slots__ = ("beginning", "ending")

    def __init__(self, beginning: bytes, ending: Ending) -> None:
        self.beginning: Final = beginning
        self.ending: Final = ending

    def whole(self) -> bytes:
        """Return the record."""
        return self.beginning + self.ending.text


Entry = bytes | Joined


def whole(entry: Entry) -> bytes:
    """Return the record that an entry is."""
    return entry if isinstance(entry, bytes) else entry.whole()
