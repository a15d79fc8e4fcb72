"""The read road: is there an answer in memory that may be given? If not, wait for a flight; if that fails, the policy.

``glance`` is a plain function and is tried first: a hit never suspends. Every way in asks through here, so all of
them give the same decision.
"""

import asyncio
from dataclasses import replace
from fnmatch import fnmatchcase

from sidecar.core.cache import Cache
from sidecar.core.refresher import Refresher
from sidecar.core.wishes import NO_WISHES, Wishes
from sidecar.errors import NoAnswer, TimedOut, UpstreamError
from sidecar.kit.clock import Clock
from sidecar.kit.tally import Tally
from sidecar.model import (
    Customer,
    Decision,
    Finding,
    Policy,
    Reason,
    Snapshot,
    Source,
    State,
    decide,
    decide_by_policy,
)
from sidecar.settings import Freshness

AGES = (0.1, 1, 5, 15, 30, 60, 120, 300, 600, 1800, 3600, 4 * 3600, 24 * 3600)
DURATIONS = (5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 5e-4, 1e-3, 5e-3, 0.025, 0.1, 0.25, 0.5, 1, 2, 5)


class Policies:
    """What to answer for which lookup keys when nothing trustworthy is at hand; the first matching glob wins."""

    def __init__(self, by_glob: dict[str, Policy]) -> None:
        self.by_glob = by_glob

    def matching(self, lookup_key: str) -> Policy:
        """Return the policy of the first glob that matches; ``deny`` when none does."""
        return next((policy for glob, policy in self.by_glob.items() if fnmatchcase(lookup_key, glob)), Policy.DENY)


class Checker:
    """Answer from memory while it may be trusted, wait for a flight when it may not."""

    def __init__(
        self, cache: Cache, refresher: Refresher, *, freshness: Freshness, policies: Policies, clock: Clock
    ) -> None:
        self.decisions = {(reason, source): 0 for reason in Reason for source in Source}
        self.policy_answers = dict.fromkeys(Policy, 0)
        self.ages = Tally(AGES)
        self.durations = Tally(DURATIONS)
        self.freshness = freshness
        self.policies = policies
        self._cache = cache
        self._refresher = refresher
        self._clock = clock

    def glance(self, customer: Customer, wishes: Wishes = NO_WISHES) -> Finding | None:
        """Return what memory may answer at once, starting a refresh when it is stale; None when it may not answer."""
        snapshot = self._cache.get(customer)
        if snapshot is None:
            return None
        age = self.age(snapshot)
        fresh_for, stale_for = self._bounds(snapshot)
        if age > wishes.oldest(fresh_for, stale_for):
            return None
        stale = age > fresh_for
        if stale:
            self._refresher.nudge(customer)
        return Finding(snapshot, Source.MEMORY, age, stale)

    async def find(self, customer: Customer, wishes: Wishes = NO_WISHES) -> Finding:
        """Return a snapshot that this caller may be answered from, waiting at most the deadline for a flight.

        :raises NoAnswer: when there is none.
        """
        finding = self.glance(customer, wishes) or await self._renewed(customer, wishes)
        self.ages.add(finding.age)
        return finding

    def answer(self, customer: Customer, lookup_key: str, wishes: Wishes = NO_WISHES) -> Decision | None:
        """Answer one question from memory; None when memory may not answer it."""
        began = self._clock()
        finding = self.glance(customer, wishes)
        return None if finding is None else self._count(decide(finding, lookup_key), began)

    async def check(self, customer: Customer, lookup_key: str, wishes: Wishes = NO_WISHES) -> Decision:
        """Answer one question, waiting for a flight where need be; without anything to answer from, by policy."""
        began = self._clock()
        try:
            finding = self.glance(customer, wishes) or await self._renewed(customer, wishes)
        except NoAnswer as missing:
            policy = self._policy(lookup_key, wishes)
            self.policy_answers[policy] += 1
            return self._count(decide_by_policy(customer, lookup_key, policy, missing), began)
        return self._count(decide(finding, lookup_key), began)

    def _count(self, decision: Decision, began: float) -> Decision:
        self.decisions[decision.reason, decision.source] += 1
        if decision.finding is not None:
            self.ages.add(decision.finding.age)
        self.durations.add(self._clock() - began)
        return decision

    def aged(self, decision: Decision) -> Decision:
        """Return ``decision`` with the age that it has by now: for answers that waited for others."""
        found = decision.finding
        if found is None:
            return decision
        age = self.age(found.snapshot)
        return replace(
            decision, finding=replace(found, age=age, stale=found.stale or age > self._bounds(found.snapshot)[0])
        )

    async def refresh(self, customer: Customer) -> Finding:
        """Ask Stripe again, whatever is in memory: the answer is from a flight that took off after this call.

        :raises NoAnswer: when the flight came to nothing within the deadline.
        """
        try:
            finding = await self._renewed(customer, Wishes(max_age=0.0))
        except NoAnswer as missing:
            code = missing.code if missing.cause is None else missing.cause.code
            raise NoAnswer(code, missing.detail, age=missing.age, cause=missing.cause) from None
        self.ages.add(finding.age)
        return finding

    def age(self, snapshot: Snapshot) -> float:
        """Return how old the information in ``snapshot`` may be, in seconds."""
        return max(0.0, self._clock() - snapshot.taken_at)

    def state(self, customer: Customer) -> tuple[State, Snapshot | None]:
        """Return how far the customer's snapshot may be trusted now, starting nothing."""
        snapshot = self._cache.get(customer)
        if snapshot is None:
            return State.ABSENT, None
        age, (fresh_for, stale_for) = self.age(snapshot), self._bounds(snapshot)
        if age <= fresh_for:
            return State.FRESH, snapshot
        return State.STALE if age <= stale_for else State.EXPIRED, snapshot

    def _bounds(self, snapshot: Snapshot) -> tuple[float, float]:
        """Return the ages in seconds up to which a snapshot is fresh, and up to which it may be answered stale."""
        if snapshot.unknown is not None:  # it may be made at any moment, so there is no stale "unknown"
            return self.freshness.unknown_for, self.freshness.unknown_for
        return self.freshness.fresh_for, self.freshness.stale_for

    def _policy(self, lookup_key: str, wishes: Wishes) -> Policy:
        if wishes.default is not None:
            return wishes.default
        if wishes.max_age is not None or wishes.only_if_cached:
            return Policy.ERROR  # who sets a bound wants to know that it was missed
        return self.policies.matching(lookup_key)

    async def _renewed(self, customer: Customer, wishes: Wishes) -> Finding:
        if wishes.only_if_cached:
            held = self._cache.get(customer)
            age = None if held is None else self.age(held)
            raise NoAnswer("not_cached", "nothing in memory is as young as the request wants", age=age)
        oldest = wishes.oldest(self.freshness.fresh_for, self.freshness.stale_for)
        deadline = self.freshness.deadline
        try:
            async with asyncio.timeout(deadline):
                snapshot = await self._refresher.renew(customer, since=self._clock() - oldest)
        except TimeoutError:
            late = self._refresher.trouble(customer) or TimedOut(f"Stripe did not answer within {deadline:g} s")
            return self._last_resort(customer, wishes, late)
        except UpstreamError as error:
            return self._last_resort(customer, wishes, error)
        age = self.age(snapshot)
        return Finding(snapshot, Source.UPSTREAM, age, stale=age > self._bounds(snapshot)[0])

    def _last_resort(self, customer: Customer, wishes: Wishes, cause: UpstreamError) -> Finding:
        snapshot = self._cache.get(customer)
        if snapshot is None:
            raise NoAnswer(cause.code, str(cause), cause=cause)
        age = self.age(snapshot)
        if age <= wishes.oldest_on_error(self._bounds(snapshot)[0]):
            return Finding(snapshot, Source.MEMORY, age, stale=True)
        code = cause.code if wishes.max_age is None else "too_old"
        raise NoAnswer(code, str(cause), age=age, cause=cause)
