"""How memory is handed out and taken back: glibc's allocator, Python's collector of circles.

glibc begins by giving each a map of its own, which goes back to the system when it is freed. But each one that is freed
raises the size from which it does so, up to 32 MiB: the next ones are cut from the heap, where they leave holes. The
cache's table is such a block, made anew every time that it is full; its holes were a tenth of what the cache took.
What is free at the heap's end goes back from 128 KiB on, and is asked for again with the next batch.

Python's collector looks for circles after every 700 objects that stay, more often than a batch has checks, and more
than a hundred times while the libraries are imported; now and then at all there are, of which what the libraries consist
of is by far the most, and goes only with the process.
"""

import ctypes
import gc
from typing import Any, Final

M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
"""mallopt(3); setting it ends its being raised."""

LARGE: Final = 1 << 20
"""Bytes: above what an answer takes, which is better cut from the heap, and below the table of all but small caches."""

SPARE: Final = 4 << 20
"""Bytes that may be free at the heap's end; a batch and its answer take one."""

YOUNG: Final = 10_000
"""Objects that there may be more of before the collector looks at the young ones: some MB at most."""


def set_up(library: Any = None) -> bool:
    """Set what holds from the first import on; tell whether the C library could be told, too.

    Large blocks go back to the system for good, small ones stay, and the collector looks at young objects only, until
    ``settle``.
    """
    gc.set_threshold(YOUNG, YOUNG, YOUNG)
    mallopt = getattr(ctypes.CDLL(None) if library is None else library, "mallopt", None)
    return mallopt is not None and mallopt(M_MMAP_THRESHOLD, LARGE) == 1 and mallopt(M_TRIM_THRESHOLD, SPARE) == 1


def settle() -> None:
    """Have the collector never look again at what was imported: it stays as long as the process."""
    _ = gc.collect(0)
    gc.freeze()
    gc.set_threshold(YOUNG, 10, 10)
