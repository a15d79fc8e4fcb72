"""The promises of DESIGN §5.6, each held against what was true at Stripe and when.

Lists of several pages are not read in one moment, so every entitlement is judged by itself: what an answer says of it
was true at some moment between ``as_of`` and now.
"""

import asyncio
from bisect import bisect_right
from dataclasses import dataclass, field
from math import inf
from typing import Any

from sidecar.core.wishes import Wishes
from sidecar.errors import NoAnswer
from sidecar.model import Customer, Decision, Finding, Policy, Reason, Snapshot, Source, State
from tests.simulation.history import History
from tests.simulation.scenario import Ask, Knobs
from tests.simulation.timing import Time
from tests.simulation.truth import Truth

SLACK = 1e-3
"""Seconds that calculating takes at most: some readings of a clock that ticks."""


@dataclass
class Record:
    """What is known of one process: its budget, who reads whose list, what it was told and has said."""

    rate: float
    burst: float
    tokens: float = inf
    asked_at: float = 0.0
    in_hand: int = 0
    slowed_at: float = -inf
    in_hand_then: int = 0
    asked_since: int = 0
    readers: dict[Customer, asyncio.Task[Any]] = field(default_factory=dict)
    news: dict[Customer, list[float]] = field(default_factory=dict)
    marked: dict[Customer, float] = field(default_factory=dict)
    kept: dict[Customer, float] = field(default_factory=dict)
    said: dict[Customer, float] = field(default_factory=dict)
    spans: dict[str | None, float] = field(default_factory=dict)

    def inherit(self, former: "Record") -> None:
        """Take over what holds for later processes too: news that was kept.

        Other news the feed tells again, if it is of anything that the lists in the store do not show.
        """
        self.news = {customer: [heard_at] for customer, heard_at in former.kept.items()}
        self.kept = dict(former.kept)
        self.marked = dict(former.kept)


@dataclass(frozen=True)
class Question:
    """A call that is being made: what was asked, when, and in which state memory was then."""

    ask: Ask
    wishes: Wishes
    began: float
    state: State
    record: Record
    jumps: int

    @property
    def lookup_key(self) -> str | None:
        """The key that is asked about; None for a whole list."""
        return None if self.ask.kind in ("find", "refresh", "renew_soon") else self.ask.lookup_key

    @property
    def is_plain(self) -> bool:
        """Whether the state of memory alone says how it is answered."""
        limited = self.wishes.max_age is not None or self.wishes.max_stale is not None
        return not (limited or self.wishes.only_if_cached or self.ask.wait or self.ask.kind == "refresh")


class Judge:
    """Compares what is asked of Stripe, what is kept and what is answered with the truth."""

    def __init__(self, knobs: Knobs, truth: Truth, time: Time, history: History) -> None:
        self.taken: dict[tuple[Customer, float], Snapshot] = {}
        self.jumps = 0
        self._knobs = knobs
        self._truth = truth
        self._time = time
        self._history = history

    # What is asked of Stripe.

    def asked(self, record: Record, customer: Customer | None, what: str) -> None:
        """Judge a request: is it within the budget, and the only reading of its customer's list?"""
        now, history = self._time(), self._history
        history.say("request", customer or "events", what)
        history.counts["requests"] += 1
        record.tokens = min(record.burst, record.tokens + (now - record.asked_at) * record.rate) - 1
        record.asked_at = now
        record.in_hand -= 1
        if record.tokens < -SLACK * record.rate:
            history.breaks("Budget", f"{-record.tokens:.3f} requests more than {record.rate}/s and {record.burst}")
        self._slowly(record, now)
        if customer is None:
            return
        reader, task = record.readers.get(customer), asyncio.current_task()
        if reader is not None and reader is not task and not reader.done():
            history.breaks("One flight", f"two flights read the list of {customer}")
        assert task is not None
        record.readers[customer] = task

    def throttled(self, record: Record, sent_at: float) -> None:
        """Take note that Stripe's limiter has refused a request that was sent at ``sent_at``."""
        if sent_at > record.slowed_at:
            record.slowed_at, record.asked_since, record.in_hand_then = self._time(), 0, record.in_hand

    def _slowly(self, record: Record, now: float) -> None:
        """See that for a minute after a refusal at most half of the rate is used, and what it has recovered by then.

        Tokens that were in hand, for requests that were just about to be sent, are used up.
        """
        record.asked_since += 1
        seconds = now - record.slowed_at
        allowed = record.in_hand_then + record.rate / 2 * seconds * (1 + seconds / 120)
        if seconds <= 60 and record.asked_since > allowed + SLACK:
            self._history.breaks("Throttling", f"{record.asked_since} requests {seconds:.3f} s after a refusal")

    def fetched(self, snapshot: Snapshot) -> None:
        """Judge a list that was read: is it whole?"""
        now, start = self._time(), snapshot.taken_at
        self.taken[snapshot.customer, start] = snapshot
        self._is_true(snapshot, start, now, "Whole")

    # What is kept.

    def kept(self, used: int) -> None:
        """Judge the bytes that memory takes."""
        if used > self._knobs.cache_bytes:
            self._history.breaks("Bound", f"{used} bytes are more than {self._knobs.cache_bytes}")

    # What is answered.

    def glanced(self, question: Question, decision: Decision | None) -> None:
        """Judge what memory answers at once, if anything."""
        if decision is not None:
            self.decided(question, decision)
        elif question.is_plain and question.state in (State.FRESH, State.STALE):
            self._history.breaks("Hit", f"{question.state}, and yet no answer at once")

    def decided(self, question: Question, decision: Decision) -> None:
        """Judge the answer to a check."""
        finding, ask = decision.finding, question.ask
        self._history.counts[f"answer {decision.reason}"] += 1
        if (decision.customer, decision.lookup_key) != (ask.customer, ask.lookup_key):
            self._history.breaks("Truth", f"somebody else was asked about: {decision}")
        if finding is None:
            self._judge_policy(question, decision)
            self._in_time(question)
            return
        snapshot, entitled = finding.snapshot, self._entitles(finding.snapshot, ask.lookup_key)
        reason = Reason.ENTITLED if entitled else Reason.NOT_ENTITLED
        if snapshot.unknown is not None:
            reason = Reason.UNKNOWN_CUSTOMER
        if (decision.entitled, decision.reason, decision.source) != (entitled, reason, finding.source):
            self._history.breaks("Three no's", f"{decision} from {snapshot}")
        self.found(question, finding)
        if question.state is State.DIRTY and not question.wishes.only_if_cached:
            satisfied = "in vain" if snapshot.dirty else "satisfied"
            self._history.counts[f"dirty waits {satisfied}"] += 1
        if ask.wait and entitled and self._time() - question.began > SLACK:
            self._history.counts["waits satisfied"] += 1

    def _judge_policy(self, question: Question, decision: Decision) -> None:
        ask, wishes = question.ask, question.wishes
        policy = {"key-1": Policy.ALLOW, "key-2": Policy.ERROR}.get(ask.lookup_key, Policy.DENY)
        if wishes.max_age is not None or wishes.only_if_cached:
            policy = Policy.ERROR
        if ask.default is not None:
            policy = Policy(ask.default)
        said = (decision.reason, decision.source, decision.policy, decision.entitled)
        entitled = {Policy.ALLOW: True, Policy.DENY: False, Policy.ERROR: None}[policy]
        if said != (Reason.UNAVAILABLE, Source.POLICY, policy, entitled) or decision.missing is None:
            self._history.breaks("Three no's", f"a policy's answer is {decision}")
        if decision.missing is not None:
            self.refused(question, decision.missing)

    def refused(self, question: Question, missing: NoAnswer) -> None:
        """Judge that there is no answer."""
        self._history.counts["no answer"] += 1
        if missing.code == "not_cached" and not question.wishes.only_if_cached:
            self._history.breaks("Three no's", "not in memory, but the caller would have waited")
        if missing.code == "too_old" and question.wishes.max_age is None:
            self._history.breaks("Three no's", "too old for a caller who said nothing of ages")
        if missing.age is not None and missing.age < 0:
            self._history.breaks("Truth", f"an age of {missing.age} s")
        if question.is_plain and question.state in (State.FRESH, State.STALE):
            self._history.breaks("Hit", f"{question.state}, and yet no answer: {missing!r}")

    def found(self, question: Question, finding: Finding) -> None:
        """Judge an answer that comes from a list."""
        now, customer, history = self._time(), question.ask.customer, self._history
        snapshot, as_of = finding.snapshot, finding.as_of
        history.counts["answers"] += 1
        history.say("told", *self._told(finding), *snapshot.ids)
        kept = self.taken.get((snapshot.customer, snapshot.taken_at))
        if snapshot.customer != customer or kept is None or (kept.ids, kept.plan) != (snapshot.ids, snapshot.plan):
            history.breaks("Whole", f"{snapshot} was never read")
        if as_of > now or abs(finding.age - (now - as_of)) > SLACK:
            history.breaks("Truth", f"age {finding.age}, but as_of is {now - as_of} s ago")
        self._is_true(snapshot, as_of, now, "Truth")
        self._knows_the_news(question.record, finding)
        # Who is thrown out of memory while nothing can be written comes back from the disk as old as they were there.
        if as_of < question.record.said.get(customer, -inf) and not self._knobs.disk_trouble:
            history.breaks("Forward", f"as_of was {history.moment(question.record.said[customer])} before")
        question.record.said[customer] = as_of
        self._judge_age(question, finding)
        self._in_time(question)

    def _told(self, finding: Finding) -> list[str]:
        """Return a finding in words, and count what it is an example of."""
        snapshot, counts = finding.snapshot, self._history.counts
        words = [
            str(finding.source),
            "stale" if finding.stale else "fresh",
            *(["dirty"] if snapshot.dirty else []),
            *(["unknown"] if snapshot.unknown else []),
            *(["vouched for"] if finding.as_of > snapshot.taken_at else []),
        ]
        for word in words:
            counts[f"told {word}"] += 1
        return [*words, "as of", self._history.moment(finding.as_of)]

    def _is_true(self, snapshot: Snapshot, start: float, now: float, promise: str) -> None:
        """See that what a list says of each entitlement was true at some moment from ``start`` to ``now``."""
        person, said = self._truth.people[snapshot.customer], set(snapshot.ids)
        if snapshot.unknown is not None:
            if person.created <= start:
                self._history.breaks(promise, f"{snapshot.customer} was known all the time")
            return
        if person.created > now:
            self._history.breaks(promise, f"{snapshot.customer} was not known at any time")
        for holding in person.holdings:
            if holding.id in said and not holding.sometime(start, now):
                self._history.breaks(promise, f"{holding.id} was not held, but is said to be")
            if holding.id not in said and holding.throughout(start, now):
                self._history.breaks(promise, f"{holding.id} was held, but is said not to be")
            said.discard(holding.id)
        if said:
            self._history.breaks(promise, f"never held: {sorted(said)}")

    def _entitles(self, snapshot: Snapshot, lookup_key: str) -> bool:
        holdings = self._truth.people[snapshot.customer].holdings
        return any(one.id in snapshot.ids and one.feature.lookup_key == lookup_key for one in holdings)

    def _knows_the_news(self, record: Record, finding: Finding) -> None:
        """See that no list from before some news claims to be true after it, or looks as if there had been none."""
        customer, taken_at = finding.snapshot.customer, finding.snapshot.taken_at
        heard, marked = record.news.get(customer, []), record.marked.get(customer, -inf)
        before = bisect_right(heard, finding.as_of)
        if before and taken_at < heard[before - 1]:
            at = self._history.moment(heard[before - 1])
            self._history.breaks("News", f"{finding} although there was news at {at}")
        if taken_at < marked and not finding.stale:
            self._history.breaks(
                "News", f"not marked, although there was news at {self._history.moment(marked)}: {finding}"
            )

    def _judge_age(self, question: Question, finding: Finding) -> None:
        """See that the answer is as young as the caller wants, and marked if it is old."""
        freshness, snapshot = self._knobs.freshness, finding.snapshot
        known, unknown = (
            (freshness.fresh_for, self._stale_for(question)),
            (freshness.unknown_for, freshness.unknown_for),
        )
        fresh_for, stale_for = known if snapshot.unknown is None else unknown
        if not finding.stale and (finding.age > fresh_for + SLACK or snapshot.dirty is not None):
            self._history.breaks("Stale", f"not marked: {finding}")
        wishes, since, oldest = question.wishes, self._time(), oldest_for(question.wishes, fresh_for, stale_for)
        if finding.source is Source.UPSTREAM:  # nobody knew which of them the flight would come back with
            since, oldest = question.began, max(oldest_for(wishes, *known), oldest_for(wishes, *unknown))
        if question.ask.kind == "refresh":
            oldest = 0.0
        elif wishes.stale_if_error is not None and finding.stale:
            oldest = max(oldest, fresh_for + wishes.stale_if_error)
        if finding.as_of < since - oldest - SLACK:
            self._history.breaks("Age", f"older than {oldest} s: {finding}")

    def _stale_for(self, question: Question) -> float:
        """Return how old an answer about a key, or for all of them, may be; the globs here are keys."""
        freshness, by_key = self._knobs.freshness, dict(self._knobs.freshness.stale_by_glob)
        if question.lookup_key is None:
            return min([freshness.stale_for, *by_key.values()])
        return by_key.get(question.lookup_key, freshness.stale_for)

    def _in_time(self, question: Question) -> None:
        """See that nobody waits for what they need not wait for, and nobody longer than they said."""
        took, ask, wishes = self._time() - question.began, question.ask, question.wishes
        freshness = self._knobs.freshness
        most = max(freshness.deadline, ask.wait)
        if wishes.only_if_cached and self._knobs.disk and question.state is State.ABSENT:
            most = freshness.deadline  # the disk is a cache too
        elif wishes.only_if_cached or (question.is_plain and question.state in (State.FRESH, State.STALE)):
            most = 0.0
        elif question.is_plain and question.state is State.DIRTY:
            most = min(freshness.deadline, freshness.dirty_wait)
        if ask.kind == "refresh":
            most = freshness.deadline
        if took > most + 10 * SLACK and question.jumps == self.jumps:
            self._history.breaks("Patience", f"took {took:.3f} s, longer than {most} s: {ask}")
        self._history.counts["answers that were waited for"] += took > SLACK


def oldest_for(wishes: Wishes, fresh_for: float, stale_for: float) -> float:
    """Return how old an answer may be by RFC 9111 and DESIGN §5.3."""
    if wishes.max_stale is not None:
        return min(fresh_for, inf if wishes.max_age is None else wishes.max_age) + wishes.max_stale
    return stale_for if wishes.max_age is None else min(stale_for, wishes.max_age)
