"""How late the event loop runs: what "alive" means for a process that does everything in one loop."""

import asyncio

from sidecar.kit.clock import Clock


class Pulse:
    """Measure how much later than asked the event loop wakes a sleeper."""

    def __init__(self, clock: Clock, *, every: float = 0.5) -> None:
        self._clock = clock
        self._every = every
        self._due = clock() + every
        self.lag = 0.0

    def overdue(self) -> float:
        """Return seconds by which the loop is late: as last measured, or as it is now if that is worse."""
        return max(self.lag, self._clock() - self._due, 0.0)

    async def beat(self) -> None:
        """Measure for ever; a loop for the process's task group."""
        while True:
            self._due = self._clock() + self._every
            await asyncio.sleep(self._every)
            self.lag = max(0.0, self._clock() - self._due)
