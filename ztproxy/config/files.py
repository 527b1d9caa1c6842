"""The files a configuration is made of, each as it was when it was read: what is checked is what is served.

Made by `config.load` and carried by `Settings`. A file is read once; whoever asks again gets the same bytes,
even if the disk holds others by now. `pack` makes one value of them, from which another process, or a worker
that was started again, gets exactly what is in force.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

#: Bytes of all files together: they are kept in memory as long as they are in force.
MOST: Final = 64 << 20


class Kept(Struct, frozen=True, array_like=True):
    """One file as it was found: its bytes, or why there are none."""

    data: bytes = b""
    error: int = 0  # errno
    mode: int = 0
    owner: int = 0
    secret: bool = False


class _Packed(Struct, frozen=True, array_like=True):
    kept: dict[str, Kept]
    found: dict[str, tuple[str, ...]]


class Files:
    """Files by path, and what patterns matched. `packed`: only these are there; else the disk is asked."""

    def __init__(self, packed: bytes | None = None) -> None:
        """Raises ValueError when `packed` is not what `pack` makes."""
        self._sealed = packed is not None
        known = _Packed({}, {}) if packed is None else msgspec.msgpack.decode(packed, type=_Packed)
        self._kept = known.kept
        self._found = known.found
        self._size = 0

    def read(self, path: Path, most: int, *, secret: bool = False) -> bytes:
        """Return the first `most` bytes of a file and one more if there is more. Raises OSError."""
        return self.look(path, most, secret=secret).data

    def look(self, path: Path, most: int, *, secret: bool = False) -> Kept:
        """Return a file with its mode and owner. Raises OSError; IsADirectoryError for what is no file."""
        kept = self._kept.get(str(path))
        if kept is None:
            if self._sealed:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
            kept = self._kept[str(path)] = self._from_disk(path, most, secret)
        if kept.error:
            raise OSError(kept.error, os.strerror(kept.error), str(path))
        return kept

    def _from_disk(self, path: Path, most: int, secret: bool) -> Kept:
        try:
            with open(path, "rb", opener=_never_waiting) as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    return Kept(error=errno.EISDIR, mode=status.st_mode)
                data = file.read(most + 1)
        except OSError as error:
            return Kept(error=error.errno or errno.EIO)
        self._size += len(data)
        if self._size > MOST:
            return Kept(error=errno.EFBIG)
        return Kept(data, 0, status.st_mode, status.st_uid, secret)

    def matching(self, pattern: str) -> list[Path]:
        """Return the files of an absolute pattern in order; hidden ones only when they are named."""
        found = self._found.get(pattern)
        if found is None:
            found = () if self._sealed else tuple(map(str, matching(pattern)))
            self._found[pattern] = found
        return [Path(one) for one in found]

    # ------------------------------------------------------------------ as a whole

    def pack(self) -> bytes:
        """Return all that was read, as one value. It holds secrets as the files do."""
        return msgspec.msgpack.encode(_Packed(self._kept, self._found), order="sorted")

    @property
    def digest(self) -> str:
        """SHA-256 over paths and contents, in hex. Of secrets only the paths: it is for everybody to see."""
        hashed = hashlib.sha256()
        for path, kept in sorted(self._kept.items()):
            for part in (path.encode("utf-8", "surrogateescape"), b"" if kept.secret else kept.data):
                hashed.update(len(part).to_bytes(8, "big") + part)
        return hashed.hexdigest()

    @property
    def paths(self) -> tuple[str, ...]:
        """What was read, or looked for in vain."""
        return tuple(sorted(self._kept))

    @property
    def patterns(self) -> tuple[str, ...]:
        """The patterns that were looked up."""
        return tuple(sorted(self._found))

    @contextmanager
    def laid_out(self) -> Iterator[Callable[[Path | str], Path]]:
        """Lend the files, as anonymous memory, to libraries that take nothing but a path."""
        with ExitStack() as stack:

            def at(path: Path | str) -> Path:
                kept = self._kept.get(str(path))
                if kept is None or kept.error:
                    return Path(path)  # nobody has read it before: a file of our own state
                descriptor = os.memfd_create("ztproxy", os.MFD_CLOEXEC)
                stack.callback(os.close, descriptor)
                with open(descriptor, "wb", closefd=False) as file:
                    file.write(kept.data)
                return Path(f"/proc/self/fd/{descriptor}")

            yield at


def matching(pattern: str) -> list[Path]:
    """Return the files of an absolute pattern that are there now, in order."""
    path = Path(pattern)
    try:
        found = Path("/").glob(pattern.lstrip("/"))
        return sorted(one for one in found if one == path or not one.name.startswith("."))
    except (ValueError, OSError):
        return []


def _never_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO would hold the start for ever
