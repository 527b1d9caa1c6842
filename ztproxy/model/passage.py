"""What many records say alike, and is therefore written down once."""

from typing import Final, final


@final
class Passage:
    """A part of records: members of a JSON object, without braces.

    `within` and `reference` belong to the journal that it was written into last: which segment, and where.
    """

    __slots__ = ("reference", "size", "text", "within")

    def __init__(self, text: bytes) -> None:
        self.text: Final = text
        self.size: Final = len(text)
        self.within: object = None
        self.reference = b""
