"""Which phase of its life the process is in, and since when. It only ever goes forward."""

from enum import IntEnum

from sidecar.kit.clock import Clock


class Phase(IntEnum):
    """The phases, in order."""

    STARTING = 0
    SERVING = 1
    DRAINING = 2


class Lifecycle:
    """The phase that health endpoints speak of. Losing Stripe is not a phase: answers go on without it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.phase = Phase.STARTING
        self.since = self.started_at = clock()

    def enter(self, phase: Phase) -> None:
        """Go on to ``phase``; going back changes nothing."""
        if phase > self.phase:
            self.phase = phase
            self.since = self._clock()
