"""What a seed stands for: the knobs, the truth at Stripe, the weather on the way there, and who does what when.

All of it is drawn before the run begins, around a few moments: a change, its news, the callers and a restart mean
something to each other only when they come close together.
"""

from dataclasses import dataclass
from math import inf
from random import Random
from typing import NamedTuple

from sidecar.model import Customer, Feature
from sidecar.settings import Freshness
from tests.simulation.timing import START
from tests.simulation.truth import Event, Holding, Person, Truth

DAY = 86400.0
LONG_AGO = START - 400 * DAY

ROOMY = 1 << 20
"""Bytes of memory in which nothing is forgotten. What was forgotten cannot be compared with what a store brings: a
store that may fill an empty place, or one whose list was thrown out meanwhile, can break Forward, News and Truth."""

FEATURES = (
    *(Feature(f"feat_{number}", f"key-{number}") for number in range(1, 5)),
    Feature("feat_5", "key-1"),  # archived ones' lookup keys may be used again
    Feature("feat_6", "key-2"),
)
LOOKUP_KEYS = ("key-1", "key-2", "key-3", "key-4", "key-of-none")
CACHE_CONTROLS = (
    "max-age={0}", "no-cache", "max-stale", "max-stale={0}", "stale-if-error", "max-age={0}, stale-if-error={1}",
    "only-if-cached", "only-if-cached, max-age={0}", "only-if-cached, max-stale", "max-age={0}, max-stale={1}", "no-store, x=y",
)  # fmt: skip
TROUBLES = ("500", "429", "throttled", "refused", "lost", "half", "html", "slow", "403")


@dataclass(frozen=True)
class Knobs:
    """The settings of a run, and how Stripe behaves."""

    freshness: Freshness
    every: float
    lag: float
    rate: float
    burst: int
    cache_bytes: int
    page: int
    events_page: int
    latency: float
    trouble: float
    disk: bool
    disk_trouble: float


class Outage(NamedTuple):
    """Until when requests of one kind (or all) fail from some moment on, and how."""

    start: float
    stop: float
    operation: str | None
    how: str


class Ask(NamedTuple):
    """One caller: what it asks and how; ``patience`` is after how many seconds it hangs up."""

    kind: str
    customer: Customer
    lookup_key: str
    cache_control: str | None
    default: str | None
    wait: float
    patience: float


class Step(NamedTuple):
    """Something that is done from outside, ``at`` a moment in Unix seconds."""

    at: float
    what: str
    about: object


@dataclass(frozen=True)
class Scenario:
    """A run that has not begun."""

    knobs: Knobs
    truth: Truth
    outages: list[Outage]
    steps: list[Step]


def knobs_of(rng: Random) -> Knobs:
    """Draw the settings."""
    disk = rng.random() < 0.5
    fresh_for = rng.choice((2.0, 10.0, 30.0, 120.0))
    freshness = Freshness(
        fresh_for=fresh_for,
        stale_for=fresh_for * rng.choice((1, 3, 10, 1000, 10**7)),
        unknown_for=rng.choice((0.0, 1.0, 10.0, 60.0)),
        dirty_wait=rng.choice((0.0, 0.1, 0.5, 2.0)),
        deadline=rng.choice((0.3, 1.0, 2.0, 5.0)),
        audit_every=rng.choice((0.0, 15.0, 60.0, DAY)),
        stale_by_glob=rng.choice(((), (("key-1", fresh_for * rng.choice((1, 3, 1000))),))),
    )
    return Knobs(
        freshness,
        every=rng.choice((0.0, 3.0, 5.0, 10.0, 20.0, 20.0)),
        lag=rng.choice((0.0, 1.0, 5.0, 20.0)),
        rate=rng.choice((0.5, 1.0, 3.0, 20.0)),
        burst=rng.choice((1, 2, 5)),
        cache_bytes=rng.choice((2600, 3600, ROOMY, ROOMY, ROOMY, ROOMY)),
        page=rng.choice((1, 1, 2, 3, 100)),
        events_page=rng.choice((1, 1, 2, 100)),
        latency=rng.choice((0.02, 0.1, 0.3, 1.0, 3.0)),
        trouble=rng.choice((0.0, 0.0, 0.05, 0.3)),
        disk=disk,
        disk_trouble=rng.choice((0.0, 0.0, 0.02, 0.3)) if disk else 0.0,
    )


class Author:
    """Writes the scenario of one seed."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.knobs = knobs_of(rng)
        self.duration = rng.uniform(30.0, 90.0)
        self.steps: list[Step] = []
        self.jumps = self._jumps()
        self.moments = [self._moment(rng.uniform(2.0, self.duration)) for _ in range(rng.randint(3, 9))]
        for step in self.steps:  # what happens in a jump is met after it
            self.moments.append(step.at + rng.random() * float(str(step.about)))

    def _jumps(self) -> list[tuple[float, float]]:
        """Draw when time jumps, as when a machine sleeps: at which second of the run, and how far."""
        rng = self.rng
        if rng.random() > 0.15:
            return []
        found = [
            (rng.uniform(5.0, self.duration - 5.0), rng.choice((90.0, 31 * DAY, 31 * DAY, 45 * DAY)))
            for _ in range(rng.randint(1, 2))
        ]
        for at, seconds in sorted(found):
            self.steps.append(Step(START + at + sum(long for when, long in found if when < at), "jump", seconds))
        return found

    def _moment(self, second: float) -> float:
        """Return the moment of a ``second`` of the run, not counting those that are jumped over."""
        return START + second + sum(seconds for at, seconds in self.jumps if second > at)

    def _near(self, spread: float) -> float:
        """Draw a moment soon after one of those around which the run turns, or anywhere."""
        if self.rng.random() < 0.2:
            return self._moment(self.rng.uniform(0.0, self.duration))
        return self.rng.choice(self.moments) + self.rng.gauss(0.3, 1.0) * spread

    def write(self) -> Scenario:
        """Return the scenario."""
        people = self._people()
        events = [event for person in people for event in self._life(person)]
        for event in events:
            self._deliver(event)
        self._calls([person.customer for person in people])
        self._accidents([person.customer for person in people])
        steps = sorted((step for step in self.steps if step.at >= START), key=lambda step: step.at)
        return Scenario(self.knobs, Truth(people, events), self._outages(), steps)

    def _people(self) -> list[Person]:
        rng = self.rng
        found = [Person(Customer(f"cus_{letter}")) for letter in "abc"[: rng.randint(1, 3)]]
        if rng.random() < 0.35:
            found.append(Person(Customer("cus_a", "acct_1")))  # its namesake is somebody else
        if rng.random() < 0.35 or len(found) < 2:
            found.append(Person(Customer("cus_new"), created=self._near(2.0)))
        return found

    def _life(self, person: Person) -> list[Event]:
        """Let a customer hold and lose things; return the events that tell of it."""
        rng, holdings = self.rng, person.holdings
        known = person.created < START
        held = [
            Holding(f"ent_{person.customer}_{at}", feature, LONG_AGO + at)
            for at, feature in enumerate(rng.sample(FEATURES, rng.randint(0, 5) if known else 0))
        ]
        changes = sorted(self._near(0.7) for _ in range(rng.randint(1, 7)))
        changes = [at for at in changes if at > max(person.created, START)]
        for number, at in enumerate(changes):
            free = [feature for feature in FEATURES if all(one.feature is not feature for one in held)]
            if held and (not free or rng.random() < 0.5):
                lost = held.pop(rng.randrange(len(held)))
                holdings.append(lost._replace(until=at))
            else:
                held.append(Holding(f"ent_{person.customer}_new{number}", rng.choice(free), at))
        holdings += held
        holdings.sort(key=lambda holding: -holding.since)
        return [
            Event(f"evt_{person.customer}_{number}", person.customer, at, at + self._delay())
            for number, at in enumerate(changes)
        ]

    def _delay(self) -> float:
        """Draw how long an event takes to become visible."""
        return self.rng.choice((0.0, self.rng.random(), self.rng.random(), 0.999)) * self.knobs.lag

    def _deliver(self, event: Event) -> None:
        """Draw when a webhook tells of ``event``: at once, late, never, several times."""
        rng = self.rng
        delays = [rng.uniform(0.01, 0.5), rng.uniform(0.5, 5.0), rng.uniform(5.0, 60.0)]
        for delay in rng.sample(delays, rng.choice((0, 0, 0, 1, 1, 1, 2, 3))):
            self.steps.append(Step(event.changed + delay, "webhook", event))
            if self.knobs.disk and rng.random() < 0.03:  # it was answered: is it on the disk?
                self.steps.append(
                    Step(event.changed + delay + rng.uniform(0.0, 0.2), "restart", rng.choice((0.0, 1.0)))
                )

    def _calls(self, customers: list[Customer]) -> None:
        rng = self.rng
        for _ in range(rng.randint(25, 55)):
            at, asks = self._near(2.5), [self._ask(rng.choice(customers))]
            if rng.random() < 0.06:
                asks = [self._ask(asks[0].customer) for _ in range(8)]
            self.steps.extend(Step(at, "ask", ask) for ask in asks)

        for step in [step for step in self.steps if step.what == "jump"]:  # what is old is still known afterwards
            for customer in customers:
                old = Ask("find", customer, LOOKUP_KEYS[0], "only-if-cached, max-stale", None, 0.0, inf)
                after = step.at + float(str(step.about)) + rng.uniform(0.0, 10.0)
                self.steps += [Step(step.at - 0.5, "ask", old), Step(after, "ask", old)]

    def _ask(self, customer: Customer) -> Ask:
        rng, control = self.rng, None
        kind = rng.choice(("check",) * 7 + ("find", "find", "answer", "answer", "refresh", "renew_soon"))
        if rng.random() < 0.4:
            seconds = (0, 1, 3, 10, 60, 1000)
            control = rng.choice(CACHE_CONTROLS).format(rng.choice(seconds), rng.choice(seconds))
        wait = rng.choice((0.5, 3.0, 8.0)) if rng.random() < 0.12 else 0.0
        if control is not None and "only-if-cached" in control:
            wait = 0.0
        default = rng.choice(("allow", "deny")) if rng.random() < 0.1 else None
        patience = rng.expovariate(2.0) if rng.random() < 0.08 else inf
        return Ask(kind, customer, rng.choice(LOOKUP_KEYS), control, default, wait, patience)

    def _accidents(self, customers: list[Customer]) -> None:
        """Draw restarts, lists that others took, and calls to hurry."""
        rng = self.rng
        for _ in range(rng.choice((0, 0, 0, 1, 2))):
            self.steps.append(Step(self._near(3.0), "restart", rng.choice((0.0, 0.0, 1.0, 15.0))))
        for _ in range(rng.choice((0, 0, 2, 4, 8))):
            self.steps.append(Step(self._near(3.0), "older", rng.choice(customers)))
        for _ in range(rng.choice((0, 0, 2, 4))):
            self.steps.append(Step(self._near(3.0), "peer", rng.choice(customers)))
        for _ in range(rng.choice((0, 0, 3))):
            self.steps.append(Step(self._near(1.0), "hurry", None))

    def _outages(self) -> list[Outage]:
        rng, found = self.rng, []
        for _ in range(rng.choice((0, 0, 0, 1, 2))):
            start = self._near(3.0)
            stop = start + rng.choice((1.0, 5.0, 30.0))
            found.append(Outage(start, stop, rng.choice((None, "list", "events")), rng.choice(TROUBLES)))
        if rng.random() < 0.1:
            start = self._near(3.0)
            found.append(Outage(start, start + rng.uniform(5.0, 40.0), "events", "403"))
        return found
