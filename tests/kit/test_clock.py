"""What time it is."""

import time

from sidecar.kit.clock import steady_clock, type_of_clock


def test_it_starts_at_wall_time() -> None:
    """A new clock shows Unix time, not the time since boot."""
    before = time.clock_gettime(time.CLOCK_REALTIME)
    now = steady_clock()()
    assert before - 1 < now < time.clock_gettime(time.CLOCK_REALTIME) + 1


def test_it_never_goes_back() -> None:
    """A thousand readings are in order."""
    clock = steady_clock()
    readings = [clock() for _ in range(1000)]
    assert readings == sorted(readings)


def test_it_follows_the_clock_that_does_not_jump() -> None:
    """Between any two readings it advances as the steady clock does: one constant lies between them."""
    clock = steady_clock()
    least, most = 0.0, float("inf")
    for _ in range(100):
        before = time.clock_gettime(type_of_clock)
        now = clock()
        after = time.clock_gettime(type_of_clock)
        least, most = max(least, now - after), min(most, now - before)
    assert least <= most + 1e-6  # a float of that size has a resolution of 2.4e-7


def test_sleep_of_the_machine_counts_where_it_can() -> None:
    """On Linux the clock goes on while a laptop or a virtual machine sleeps."""
    assert type_of_clock == getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
