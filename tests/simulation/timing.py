"""Time in the simulation: one number, which the loop's timers and the product's clock both read.

It never stands still: each reading of the clock adds a microsecond, so no two moments of a history are equal.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any

START = 1_790_000_000.0
TICK = 1e-6


class Time:
    """The clock that parts ask (call it), and what moves it."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        self.now += TICK
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass, for the loop's timers too: those that are due by then fire late."""
        self.now += seconds


class Skipping(selectors.SelectSelector):
    """Nothing comes from outside; instead of waiting for a timer, time is moved to it."""

    def __init__(self, time: Time) -> None:
        super().__init__()
        self._time = time

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("everybody waits, and nothing will ever happen")
        if timeout > 0:
            self._time.advance(timeout)
        return []


class Loop(asyncio.SelectorEventLoop):
    """An event loop that never waits."""

    def __init__(self, time: Time) -> None:
        super().__init__(Skipping(time))
        self._time = time
        self._clock_resolution = TICK  # doubles are that coarse, nearly, so many seconds after 1970

    def time(self) -> float:
        return self._time.now - START


def play(time: Time, story: Coroutine[Any, Any, None], complain: Any) -> None:
    """Run ``story`` to its end; ``complain`` is told of what asyncio finds odd, as ``call_exception_handler`` says."""
    loop = Loop(time)
    loop.set_exception_handler(lambda _, context: complain(context))
    try:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(story)
    finally:
        asyncio.set_event_loop(None)
        loop.close()
