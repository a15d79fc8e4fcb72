"""What happened in one run: counts always; lines to read only when somebody will read them."""

from collections import Counter
from collections.abc import Callable

from tests.simulation.timing import START


class History:
    """Counts situations, and writes down what happened when it is ``written``. The first broken promise ends it.

    With a ``promise`` only that one is minded.
    """

    def __init__(self, now: Callable[[], float], *, written: bool, promise: str | None = None) -> None:
        self.counts: Counter[str] = Counter()
        self.lines: list[str] = []
        self.broken: str | None = None
        self.written = written
        self._now = now
        self._promise = promise

    def say(self, what: str, *details: object) -> None:
        """Write a line of the history."""
        if self.written and self.broken is None:
            self.lines.append(f"{self.moment(self._now()):>14}  {what:<9} {' '.join(map(str, details))}")

    @staticmethod
    def moment(moment: float) -> str:
        """Return a moment as seconds of the run."""
        return f"{moment - START:.6f}"

    def breaks(self, promise: str, why: str) -> None:
        """Note that ``promise`` was broken; only the first one counts, what follows may be its consequence."""
        if self.broken is None and self._promise in (None, promise):
            self.say("BROKEN", f"{promise}:", why)
            self.broken = f"{promise}: {why}"
