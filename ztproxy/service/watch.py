"""Whether files have changed, told by looks at them: names, times, sizes, modes and inodes, never contents.

Used by `service.supervisor` a few times a second. A change counts when it has come to rest: what is half
written may well be sound, and mean something else. Renaming over a file and swapping a symbolic link
(Kubernetes) change the inode.
"""

import os
import time
from collections.abc import Sequence
from typing import Final

from ztproxy.config.files import matching

#: Seconds for which files have to look the same before they are read.
REST: Final = 0.4
#: Seconds between two looks, within these bounds: looking is to take no more than this share of a core.
SHARE: Final = 0.01
SOONEST: Final = 0.2
LATEST: Final = 1.0

Sight = tuple[int, ...] | tuple[str, ...] | None


def look(read: Sequence[str]) -> dict[str, Sight]:
    """Return what paths, and patterns of paths, look like now."""
    seen: dict[str, Sight] = {}
    for one in read:
        if set(one) & set("*?["):
            seen[f"{one} matches"] = tuple(map(str, matching(one)))
        try:
            status = os.stat(one)  # noqa: PTH116 - as cheap as it gets
        except (OSError, ValueError):
            seen[one] = None
        else:
            times = status.st_mtime_ns, status.st_ctime_ns
            seen[one] = (*times, status.st_size, status.st_ino, status.st_dev, status.st_mode)
    return seen


class Watch:
    """Files and patterns under watch."""

    def __init__(self, read: Sequence[str]) -> None:
        self._read = tuple(read)
        self._known = look(read)
        self._moving: dict[str, Sight] | None = None
        self._since = 0.0  # when it began to look like that
        self.pause = SOONEST  # seconds until the next look

    def changed(self, now: float) -> bool:
        """Look; True once for every change that has come to rest. `now`: monotonic seconds."""
        began = time.thread_time()
        seen = look(self._read)
        self.pause = min(max(SOONEST, (time.thread_time() - began) / SHARE), LATEST)
        if seen == self._known:
            self._moving = None
            return False
        if seen != self._moving:
            self._moving, self._since = seen, now
            return False
        if now - self._since < REST:
            return False
        self._known, self._moving = seen, None
        return True

    def begin(self) -> None:
        """Files are read from now on: what changes later is news."""
        self._known, self._moving = look(self._read), None

    def follow(self, read: Sequence[str]) -> None:
        """These are the files that were read since `begin`."""
        before = self._known
        self._read = tuple(dict.fromkeys(map(str, read)))
        self._known = {key: before.get(key, sight) for key, sight in look(self._read).items()}
