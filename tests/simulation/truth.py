"""What is true at Stripe, at every moment of a run: made before it begins, so that any moment can be asked about."""

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from math import floor, inf
from typing import NamedTuple

from sidecar.model import Customer, Feature


class Holding(NamedTuple):
    """An entitlement, active from ``since`` until just before ``until``."""

    id: str
    feature: Feature
    since: float
    until: float = inf

    def at(self, moment: float) -> bool:
        """Tell whether it is active at ``moment``."""
        return self.since <= moment < self.until

    def sometime(self, start: float, stop: float) -> bool:
        """Tell whether it is active at some moment from ``start`` to ``stop``."""
        return self.since <= stop and start < self.until

    def throughout(self, start: float, stop: float) -> bool:
        """Tell whether it is active at every moment from ``start`` to ``stop``."""
        return self.since <= start and stop < self.until


@dataclass
class Person:
    """A customer, not known to Stripe before ``created``, with all that they ever hold."""

    customer: Customer
    created: float = -inf
    holdings: list[Holding] = field(default_factory=list)

    def list_at(self, moment: float) -> list[Holding]:
        """Return what Stripe lists at ``moment``, the newest first."""
        return [holding for holding in self.holdings if holding.at(moment)]


@dataclass(frozen=True)
class Event:
    """News of a change; ``visible`` is when the list of events begins to show it."""

    id: str
    customer: Customer
    changed: float
    visible: float

    @property
    def created(self) -> int:
        """Whole seconds, as Stripe says it."""
        return floor(self.changed)


class Events:
    """One account's events; Stripe lists those of the last 30 days, the newest first."""

    KEPT = 30 * 86400

    def __init__(self, events: list[Event]) -> None:
        self._events = sorted(events, key=lambda event: (event.created, event.changed))
        self._created = [event.created for event in self._events]

    def list_at(self, moment: float, since: int) -> list[Event]:
        """Return what is listed at ``moment`` of what was created at ``since`` or later."""
        start = bisect_left(self._created, max(since, floor(moment - self.KEPT)))
        stop = bisect_right(self._created, moment)
        return [event for event in reversed(self._events[start:stop]) if event.visible <= moment]


class Truth:
    """All customers and all events of a run."""

    def __init__(self, people: list[Person], events: list[Event]) -> None:
        self.people = {person.customer: person for person in people}
        self.events = events
        accounts = {None: None, **{person.customer.account: None for person in people}}
        self.by_account = {
            account: Events([event for event in events if event.customer.account == account]) for account in accounts
        }

    @property
    def customers(self) -> list[Customer]:
        """Everybody, whether created by now or not."""
        return list(self.people)
