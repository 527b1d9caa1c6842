"""Text as the value of a header field. Pure; used wherever names of people and things go into messages."""

from functools import lru_cache
from typing import Final
from urllib.parse import quote

_SAFE: Final = " !#$&'()*+/:;=?@[]-._~"


@lru_cache(4096)
def field_text(text: str) -> bytes:
    """Return text as a header value: printable ASCII, everything else percent-encoded."""
    return quote(text, safe=f"{_SAFE},", errors="replace").encode("ascii")


@lru_cache(4096)
def field_list(texts: tuple[str, ...]) -> bytes:
    """Return texts separated by commas; those of a text are percent-encoded."""
    return ",".join(quote(text, safe=_SAFE, errors="replace") for text in texts).encode("ascii")
