"""What was true at the built-in Stripe, and when; every answer is held against it (DESIGN §5.6)."""

from bisect import bisect_left
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import inf
from typing import Any

from sidecar.demo import FakeStripe

SLACK = 0.05
"""Seconds by which two processes may read one clock differently: it may be slewed after one of them has started."""

REMEMBERED = 200
"""Answers about a customer that are remembered, to be compared with later ones."""

CODES = {"broken", "throttled", "unreachable", "deadline", "over_budget", "circuit_open"}


def wall() -> float:
    """Return the time by this machine's clock, in Unix seconds."""
    return datetime.now(UTC).timestamp()


@dataclass(frozen=True)
class Span:
    """Whether something was held, and from when on."""

    since: float
    held: bool


@dataclass
class Truth:
    """Changes what customers hold, remembers when, and judges answers.

    ``counts`` says how often what was seen, so that a test can tell that it saw anything.
    """

    stripe: FakeStripe
    counts: Counter[str] = field(default_factory=Counter)
    _spans: defaultdict[tuple[str, str], list[Span]] = field(
        default_factory=lambda: defaultdict(lambda: [Span(-inf, held=False)])
    )
    _news: dict[str, tuple[float, float]] = field(default_factory=dict)
    _said: defaultdict[tuple[object, str], list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))

    def change(self, customer: str, lookup_key: str, *, held: bool) -> float:
        """Grant or revoke, and return the moment just before."""
        before = wall()
        _ = self.stripe.grant(customer, lookup_key) if held else self.stripe.revoke(customer, lookup_key)
        self._spans[customer, lookup_key].append(Span(before, held=held))
        return before

    def last_event(self) -> dict[str, Any]:
        """Return what Stripe has to tell of the last change."""
        return self.stripe.accounts[None].events._occurrences[-1].event

    def is_held(self, customer: str, lookup_key: str) -> bool:
        """Tell what is true now."""
        return self._spans[customer, lookup_key][-1].held

    def acknowledged(self, customer: str, changed_at: float) -> None:
        """Note that news of a change was answered 200 just now."""
        known = self._news.get(customer, (-inf, -inf))
        if changed_at > known[0]:
            self._news[customer] = changed_at, wall()

    def moment(self, answer: dict[str, Any]) -> float:
        """Return as of when an answer is, in Unix seconds."""
        return datetime.fromisoformat(answer["as_of"]).timestamp()

    def judge(self, answer: dict[str, Any], asked_at: float, process: object) -> None:
        """See that an answer that came just now says what its age covers; ``process`` is who gave it."""
        got_at = wall()
        if answer["source"] == "policy":
            assert (answer["reason"], answer["age"], answer["as_of"]) == ("unavailable", None, None), answer
            assert answer["code"] in CODES, answer
            self.counts["policy"] += 1
            return
        customer, as_of = answer["customer"], self.moment(answer)
        self.counts["stale" if answer["stale"] else "fresh"] += 1
        self.counts[answer["source"]] += 1
        assert answer["entitled"] is (answer["reason"] == "entitled"), answer
        assert asked_at - as_of - SLACK <= answer["age"] <= got_at - as_of + SLACK, f"no true age: {answer}"
        assert self._was(customer, answer["lookup_key"], answer["entitled"], since=as_of, until=got_at), (
            f"not true in the last {answer['age']} s: {answer}; {self._spans[customer, answer['lookup_key']][-3:]}"
        )
        changed_at, told_at = self._news.get(customer, (-inf, inf))
        assert answer["stale"] or told_at > asked_at or as_of >= changed_at - SLACK, f"news was lost: {answer}"
        said = self._said[process, customer]  # when what was heard, and up to when it was true at most
        before = said[: bisect_left(said, (asked_at, -inf))]
        assert as_of >= (before[-1][1] if before else -inf), f"went back in time: {answer}"
        said.append((got_at, max(as_of, said[-1][1] if said else -inf)))
        del said[:-REMEMBERED]

    def _was(self, customer: str, lookup_key: str, held: bool, *, since: float, until: float) -> bool:  # noqa: FBT001 -- the state
        end = inf
        for span in reversed(self._spans[customer, lookup_key]):
            if end < since - SLACK:
                return False
            if span.held is held and span.since <= until + SLACK:
                return True
            end = span.since
        return False
