"""Clean pages for buffers that will hardly be used.

Called by `net.listener` before each TLS handshake. A handshake zeroes and frees some twenty KiB; glibc would
make the next connection's buffers of just these pages, so that an idle connection costs as much as one that
uses all its buffers. It is about memory alone: whatever the allocator does, nothing but speed depends on it.
"""

import ctypes
import mmap
from collections.abc import Callable
from typing import Final

_PAGE: Final = mmap.PAGESIZE
_DONTNEED: Final = getattr(mmap, "MADV_DONTNEED", None)


def _cleaner() -> Callable[..., None]:
    c = ctypes.PyDLL(None)  # a microsecond in all: not worth letting other threads in
    malloc, free = c.malloc, c.free
    malloc.argtypes, malloc.restype = (ctypes.c_size_t,), ctypes.c_void_p
    free.argtypes, free.restype = (ctypes.c_void_p,), None
    advise = getattr(c, "madvise", None)
    if advise is None or _DONTNEED is None:
        return lambda *sizes: None
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)

    def clean(*sizes: int) -> None:
        """Have what the allocator would hand out for each of these sizes made of pages nobody has used."""
        for size in sizes:
            block = malloc(size)
            if not block:
                continue
            first, end = -(-block // _PAGE) * _PAGE, (block + size) // _PAGE * _PAGE
            if first < end:
                advise(first, end - first, _DONTNEED)  # ours while we hold it
            free(block)

    return clean


clean: Final = _cleaner()
