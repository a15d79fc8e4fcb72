"""What time it is.

Ages must not jump when an administrator or NTP sets the wall clock, and must not stand still while a laptop or a
virtual machine sleeps. So: the wall time at start, plus what a clock that never jumps and never sleeps has counted
since. On Linux that is ``CLOCK_BOOTTIME`` (clock_gettime(2)); elsewhere the monotonic clock is the nearest thing.
"""

import time
from collections.abc import Callable

type_of_clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

Clock = Callable[[], float]
"""Seconds since 1970-01-01 UTC, never going back within a process."""


def steady_clock() -> Clock:
    """Return a clock that starts at wall time and is steady from then on."""
    gettime, which = time.clock_gettime, type_of_clock
    offset = time.clock_gettime(time.CLOCK_REALTIME) - gettime(which)

    def now() -> float:
        return offset + gettime(which)

    return now
