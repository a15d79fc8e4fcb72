"""What is measured: every line of every table that comes of putting servers under load. To add one, add an entry."""

from collections.abc import Sequence
from dataclasses import dataclass

from tests.bench.contestants import (
    BARE,
    CERBOS,
    CONSTANT,
    NGINX,
    OURS,
    PLAIN,
    UNLEASH,
    Contestant,
    bare,
    cerbos,
    nginx,
    ours,
    plain,
    unleash,
)
from tests.bench.load import Load
from tests.bench.questions import (
    CACHED_LIST,
    CHECK,
    CROWD_CHECKS,
    CROWD_LISTS,
    HUNDRED_BY_TEN,
    RESOURCE,
    STRIPE_LIST,
    THOUSAND_BY_ONE,
    TOGGLE,
    Question,
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line: who is asked what, and anything special about the load."""

    name: str
    server: Contestant
    question: Question
    rate: float | None = None
    over_unix: bool = False
    plainly: bool = False

    def load(self, connections: int, seconds: int) -> Load:
        """Return its load."""
        return Load(connections, seconds, self.rate, over_unix=self.over_unix, plainly=self.plainly)


@dataclass(frozen=True, slots=True)
class Contest:
    """One table."""

    name: str
    title: str
    entries: Sequence[Entry]
    against: Sequence[tuple[str, str]] = ()
    """Columns that compare: a heading, and the line that is 1."""
    connections: int | None = None
    """As many in any case."""


def paced(rate: int) -> Sequence[Entry]:
    """Return who is asked at a fixed rate."""
    who = ((OURS, ours, CHECK), (PLAIN, plain, CHECK), (NGINX, nginx, CACHED_LIST))
    return [Entry(f"{rate:,}/s: {name}", server, question, rate) for name, server, question in who]


def over_both(name: str, server: Contestant, question: Question) -> Sequence[Entry]:
    """Return the same over TCP and over a unix socket."""
    return [
        Entry(f"{name}, TCP", server, question, plainly=True),
        Entry(f"{name}, unix socket", server, question, over_unix=True),
    ]


CONTESTS = (
    Contest(
        "check",
        "One check, one customer",
        (
            Entry(OURS, ours, CHECK),
            Entry(PLAIN, plain, CHECK),
            Entry(NGINX, nginx, CACHED_LIST),
            Entry(CONSTANT, nginx, CHECK),
            Entry(BARE, bare(CHECK), CHECK),
            Entry(UNLEASH, unleash, TOGGLE),
            Entry(CERBOS, cerbos, RESOURCE),
        ),
        (("× nginx", NGINX), ("× bare", BARE), ("× plain", PLAIN)),
    ),
    Contest(
        "crowd",
        "One check, 10,000 customers × 5 keys in random order",
        (
            Entry(OURS, ours, CROWD_CHECKS),
            Entry(PLAIN, plain, CROWD_CHECKS),
            Entry(NGINX, nginx, CROWD_LISTS),
        ),
        (("× nginx", NGINX), ("× plain", PLAIN)),
    ),
    Contest(
        "list",
        "Stripe's own list",
        (
            Entry(OURS, ours, STRIPE_LIST),
            Entry(NGINX, nginx, CACHED_LIST),
            Entry(BARE, bare(STRIPE_LIST), STRIPE_LIST),
        ),
        (("× nginx", NGINX), ("× bare", BARE)),
    ),
    Contest(
        "batch",
        "A thousand checks in one request",
        (
            Entry(f"{OURS}, 100 customers × 10 keys", ours, HUNDRED_BY_TEN),
            Entry(f"{OURS}, 1000 customers", ours, THOUSAND_BY_ONE),
            Entry(f"{PLAIN}, 100 customers × 10 keys", plain, HUNDRED_BY_TEN),
            Entry(f"{PLAIN}, 1000 customers", plain, THOUSAND_BY_ONE),
            Entry(BARE, bare(HUNDRED_BY_TEN), HUNDRED_BY_TEN),
        ),
        (("× bare", BARE),),
        connections=4,
    ),
    Contest(
        "sockets",
        "One check over TCP and over a unix socket",
        (
            *over_both(OURS, ours, CHECK),
            *over_both(NGINX, nginx, CACHED_LIST),
            *over_both(BARE, bare(CHECK), CHECK),
        ),
    ),
    Contest("rates", "One check at a fixed rate", (*paced(1000), *paced(5000), *paced(20_000))),
)
