"""How glibc's allocator deals with large blocks.

It begins by giving each a map of its own, which goes back to the system when it is freed. But each one that is freed
raises the size from which it does so, up to 32 MiB: the next ones are cut from the heap, where they leave holes. The
cache's table is such a block, made anew every time that it is full; its holes were a tenth of what the cache took.
"""

import ctypes
from typing import Any, Final

M_MMAP_THRESHOLD: Final = -3
"""mallopt(3); setting it ends its being raised."""

LARGE: Final = 1 << 20
"""Bytes: above what an answer takes, which is better cut from the heap, and below the table of all but small caches."""


def set_up(library: Any = None) -> bool:
    """Have large blocks go back to the system for good; tell whether the C library can do so."""
    mallopt = getattr(ctypes.CDLL(None) if library is None else library, "mallopt", None)
    return mallopt is not None and mallopt(M_MMAP_THRESHOLD, LARGE) == 1
