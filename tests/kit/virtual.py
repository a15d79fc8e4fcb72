"""Virtual time: an event loop that never waits. When nothing is left to do it skips to the next timer at once."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

from tests.fakes import FakeClock

T = TypeVar("T")


class Skipping(selectors.SelectSelector):
    """Instead of waiting for so many seconds, advance the clock by them."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self.clock = clock
        self.skipped = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        assert ready or timeout is not None, "everybody waits, and nothing will ever happen"
        if not ready and timeout:
            self.skipped += timeout
            self.clock.advance(timeout)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop that takes its time from a ``Skipping`` selector."""

    def __init__(self, clock: FakeClock) -> None:
        self._skipping = Skipping(clock)
        super().__init__(self._skipping)

    def time(self) -> float:
        return self._skipping.skipped


def play(clock: FakeClock, story: Coroutine[Any, Any, T]) -> T:
    """Run ``story`` in a loop of its own whose sleeps take no time and move ``clock``."""
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(clock)) as runner:
        return runner.run(story)
