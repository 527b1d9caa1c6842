"""What lives long, in large pages.

Called by a worker when all it needs is there and before it serves. Thousands of sessions and routes lie on
more pages than a processor knows the places of, so each request for somebody else has it look them up, twice
as long under a hypervisor; of pages of 2 MiB it knows them all. It is about speed alone: what the kernel does
not do stays as it was, and no value ever changes.
"""

import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import Final

LARGE: Final = 2 << 20  # bytes of a large page
#: madvise(2): put what is there into a large page now; since Linux 6.1, whatever is configured but "never".
_COLLAPSE: Final = 25
_MAPS: Final = Path("/proc/self/smaps")


def gather() -> int:
    """Have the kernel gather what is well filled into large pages; return how many there are now.

    It copies some two GB a second, once: what lies in large pages already costs nothing. 0 where there is no
    such thing.
    """
    advise = getattr(ctypes.CDLL(None), "madvise", None)  # others may run meanwhile
    if advise is None:
        return 0
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return sum(advise(place, LARGE, _COLLAPSE) == 0 for place in _places())


def _places() -> Iterator[int]:
    """Yield the beginnings of all large pages within memory that is ours alone and in use nearly everywhere.

    Not the heap of malloc: buffers of connections come and go there, and have to stay where nobody has been
    (`net.pages`).
    """
    try:
        lines = _MAPS.read_text(errors="replace").splitlines()
    except OSError:
        return
    first = end = 0
    for line in lines:
        words = line.split()
        if words[0] == "Rss:":
            if int(words[1]) * 1024 * 4 >= (end - first) * 3:
                yield from range(-(-first // LARGE) * LARGE, end // LARGE * LARGE, LARGE)
        elif not words[0].endswith(":"):
            private = words[1] == "rw-p" and words[4] == "0" and len(words) == 5
            first, end = (int(one, 16) for one in words[0].split("-")) if private else (0, 0)
