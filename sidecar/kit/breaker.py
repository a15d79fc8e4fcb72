"""When nothing comes back, asking stops for a while; then one request finds out whether it is worth going on.

What happens in which state is ``TABLE``, and nothing else is: an event that is not in the table of a state is illegal
there. The table is also drawn in docs/breaker.md.

Only those who entered under the present state have a say. What was sent before the breaker opened, and comes to
something later, tells of the past; and while it is half open, the one probe decides.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from sidecar.errors import CircuitOpen, UpstreamError
from sidecar.kit.clock import Clock

log = logging.getLogger(__name__)

FAILURES: Final = 5
"""Failures in a row that open it: more than one request and all its attempts come to."""

REST, LONGEST_REST = 1.0, 30.0
"""Seconds for which it stays open at first, and at most; each failed probe doubles them."""

JITTER: Final = 0.2
"""The part of a rest that may be cut off, so that many who broke together do not probe together."""


class State(StrEnum):
    """Whether requests are let through."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Event(StrEnum):
    """What happens to a breaker."""

    SUCCESS = "success"
    FAILURE = "failure"
    LAST_FAILURE = "too many failures in a row"
    RESTED = "time is over"
    UNDECIDED = "undecided"


TABLE: Final[dict[State, dict[Event, State]]] = {
    State.CLOSED: {
        Event.SUCCESS: State.CLOSED,
        Event.FAILURE: State.CLOSED,
        Event.UNDECIDED: State.CLOSED,
        Event.LAST_FAILURE: State.OPEN,
    },
    State.OPEN: {
        Event.RESTED: State.HALF_OPEN,
    },
    State.HALF_OPEN: {
        Event.SUCCESS: State.CLOSED,
        Event.FAILURE: State.OPEN,
        Event.UNDECIDED: State.HALF_OPEN,
    },
}


class Passage:
    """One request that was let through; whoever sent it says what came of it, or leaves it undecided."""

    def __init__(self, period: int) -> None:
        self.period = period
        self.event = Event.UNDECIDED
        self.cause: UpstreamError | None = None

    def succeed(self) -> None:
        """Say that the other side works."""
        self.event = Event.SUCCESS

    def fail(self, cause: UpstreamError) -> None:
        """Say that it does not."""
        self.event, self.cause = Event.FAILURE, cause


class Breaker:
    """Lets requests through while they come to something. ``jitter`` gives numbers from 0 to 1.

    ``opened`` counts how often it opened, failed probes not counted again; ``since`` is since when it is closed, or not
    closed; ``cause`` the last failure, None when none was since the last success.
    """

    def __init__(self, name: str, *, clock: Clock, jitter: Callable[[], float]) -> None:
        self.opened = 0
        self.since = clock()
        self.cause: UpstreamError | None = None
        self._name = name
        self._clock = clock
        self._jitter = jitter
        self._state = State.CLOSED
        self._period = 0
        self._failures = 0
        self._rests = 0
        self._until = 0.0
        self._probe: Passage | None = None

    @property
    def state(self) -> State:
        """The state, at this moment."""
        if self._state is State.OPEN and self._clock() >= self._until:
            self._turn(Event.RESTED)
        return self._state

    @property
    def lets_through(self) -> bool:
        """Whether a request would be let through now."""
        state = self.state
        return state is State.CLOSED or (state is State.HALF_OPEN and self._probe is None)

    def look(self) -> None:
        """Do nothing if a request would be let through now.

        :raises CircuitOpen: if not.
        """
        if not self.lets_through:
            since = f"{datetime.fromtimestamp(self.since, UTC):%Y-%m-%dT%H:%M:%SZ}"
            last = "" if self.cause is None else f"; the last failure was {say(self.cause)}"
            raise CircuitOpen(
                f"nothing is asked for a while, for all requests have failed since {since}{last}", last=self.cause
            )

    @contextmanager
    def entered(self) -> Iterator[Passage]:
        """Let a request through; what comes of it is counted at the end.

        :raises CircuitOpen: when it is not let through.
        """
        self.look()
        passage = Passage(self._period)
        if self._state is State.HALF_OPEN:
            self._probe = passage
        try:
            yield passage
        finally:
            if passage.period == self._period:
                self._end(passage)

    def _end(self, passage: Passage) -> None:
        event = passage.event
        if event is Event.FAILURE:
            self.cause = passage.cause
            self._failures += 1
            if self._state is State.CLOSED and self._failures >= FAILURES:
                event = Event.LAST_FAILURE
        elif event is Event.SUCCESS:
            self.cause, self._failures = None, 0
        self._turn(event)

    def _turn(self, event: Event) -> None:
        before, self._state = self._state, TABLE[self._state][event]
        self._probe = None
        if self._state is before:
            return
        self._period += 1
        if self._state is State.OPEN:
            self._rest()
        if before is State.CLOSED:
            self._opens()
        elif self._state is State.CLOSED:
            self._closes()

    def _rest(self) -> None:
        rest = min(LONGEST_REST, REST * 2.0**self._rests)
        self._rests = min(self._rests + 1, 16)  # far beyond the longest rest, and no number too large
        self._until = self._clock() + rest * (1 - JITTER * self._jitter())

    def _opens(self) -> None:
        self.opened += 1
        self.since = self._clock()
        log.warning("%s: %d failures in a row, so nothing is asked for a while: %s", self._name, FAILURES, self.cause)

    def _closes(self) -> None:
        log.info("%s: requests come to something again, after %.1f s", self._name, self._clock() - self.since)
        self.since = self._clock()
        self._rests = 0


def say(error: UpstreamError) -> str:
    """Return what an error was without its own words, which may be about another request's customer."""
    return error.code if error.status is None else f"{error.code} (status {error.status})"


def diagram() -> str:
    """Return the table as a state diagram in Mermaid's words."""
    lines = ["stateDiagram-v2", f"    [*] --> {State.CLOSED}"]
    lines += [f"    {state} --> {after}: {event}" for state, events in TABLE.items() for event, after in events.items()]
    return "\n".join(lines)
