"""Secrets: named in the configuration by `file:PATH` or `env:NAME`, never written there.

Called while settings are validated. A `Secret` shows its source wherever it is printed, dumped or raised;
only `reveal()` gives the value. No message of this module carries a value.
"""

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic_core import PydanticCustomError

from ztproxy.config.files import Files, Kept

MAX_BYTES: Final = 64 << 10


class Secret:
    """A secret value and the name of its source."""

    __slots__ = ("__value", "source")

    def __init__(self, source: str, value: str) -> None:
        self.source = source
        self.__value = value

    def reveal(self) -> str:
        """Return the value. Never put it into a message."""
        return self.__value

    @property
    def path(self) -> Path | None:
        """The absolute path of a `file:` secret."""
        return Path(self.source.removeprefix("file:")) if self.source.startswith("file:") else None

    def __repr__(self) -> str:
        return f"Secret({self.source})"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and (self.source, self.__value) == (other.source, other.__value)

    def __hash__(self) -> int:
        return hash(self.source)


def wrong(message: str, remedy: str, *below: str | int) -> PydanticCustomError:
    """Make the error that validators raise; `load` turns it into a Problem. Braces are no placeholders.

    `below`: where in the value it is, when the value is read as a whole.
    """
    return PydanticCustomError("ztproxy", "{message}", {"message": message, "remedy": remedy, "below": below})


def resolve(text: object, base: Path, environ: Mapping[str, str], files: Files) -> Secret:
    """Read the secret that `text` names; relative paths are relative to `base`."""
    if isinstance(text, str) and text.startswith("env:"):
        return _from_environment(text.removeprefix("env:"), environ)
    if isinstance(text, str) and text.startswith("file:"):
        return _from_file(base / text.removeprefix("file:"), files)
    raise wrong(
        "a secret is never written into the configuration",
        "put it into a file of mode 0600 and write `file:PATH`, or write `env:NAME`",
    )


def _from_environment(name: str, environ: Mapping[str, str]) -> Secret:
    if not name.isidentifier() or not name.isascii():
        raise wrong("this is not the name of an environment variable", "write it like `env:ZTPROXY_SECRET`")
    value = environ.get(name, "")
    if not value:
        raise wrong(f"the environment variable {name} is not set", f"set {name}, or use `file:PATH`")
    return Secret(f"env:{name}", _one_newline_less(value))


def _from_file(path: Path, files: Files) -> Secret:
    try:
        kept = files.look(path, MAX_BYTES, secret=True)
    except IsADirectoryError:
        raise wrong(f"{path} is not a regular file", "name the file that holds the secret") from None
    except OSError as error:
        reason = (error.strerror or "unreadable").lower()
        raise wrong(f"the secret file {path} can not be read: {reason}", f"create {path}") from None
    _demand_private(kept, path)
    raw = kept.data
    if len(raw) > MAX_BYTES:
        raise wrong(f"the secret file {path} is larger than {MAX_BYTES} bytes", "is it the right file?")
    try:
        value = _one_newline_less(raw.decode("utf-8"))
    except UnicodeDecodeError:
        raise wrong(f"the secret file {path} is not text", "is it the right file?") from None
    if not value:
        raise wrong(f"the secret file {path} is empty", "write the secret into it")
    return Secret(f"file:{path}", value)


def _demand_private(kept: Kept, path: Path) -> None:
    """Ours: nobody else may read it. Root's (a mounted secret): its group may, nobody else."""
    mine = kept.owner == os.geteuid()
    if not mine and kept.owner != 0:
        raise wrong(f"{path} belongs to another user", f"chown it: chown $(id -u) {path}")
    if stat.S_IMODE(kept.mode) & (0o077 if mine else 0o037):
        raise wrong(f"others can read {path} (mode {stat.S_IMODE(kept.mode):04o})", f"chmod 600 {path}")


def _one_newline_less(text: str) -> str:
    return text.removesuffix("\n").removesuffix("\r")
