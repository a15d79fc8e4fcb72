"""The read road: is there an answer in memory that may be given? If not, wait for a flight; if that fails, the policy.

``glance`` is a plain function and is tried first: a hit never suspends. Every way in asks through here, so all of
them give the same decision.
"""

import asyncio
from contextlib import AbstractContextManager, suppress
from functools import partial

from sidecar.core import globs
from sidecar.core.recall import Recall
from sidecar.core.refresher import Refresher
from sidecar.core.trust import Trust
from sidecar.core.vigil import Vigil
from sidecar.core.wishes import NO_WISHES, Wishes
from sidecar.errors import NoAnswer, TimedOut, UpstreamError
from sidecar.kit.clock import Clock
from sidecar.kit.spans import Span, Spans, no_span
from sidecar.kit.tally import Count, Tally
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

AGES = (0.1, 1, 5, 15, 30, 60, 90, 120, 300, 600, 1800, 3600, 4 * 3600, 24 * 3600)
DURATIONS = (5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 5e-4, 1e-3, 5e-3, 0.025, 0.1, 0.25, 0.5, 1, 2, 5)


SLOW_STORE = 0.25
"""Seconds after which a store that does not answer is left to itself, and Stripe is asked."""

MOST_ACCOUNTS = 100
"""Connected accounts that are noted as asked about; each costs the feed a request per poll."""


class Policies:
    """What to answer for which lookup keys when nothing trustworthy is at hand; ``deny`` where nothing is said."""

    def __init__(self, by_glob: dict[str, Policy]) -> None:
        self.by_glob = by_glob
        self.matching = globs.by_glob(by_glob, Policy.DENY)


Sure = tuple[Snapshot, float, float, float]
"""A list that may be answered from without a second thought: since when it is known to be true (Unix seconds), its age,
and up to which age that is so, both in seconds. No named tuple: those take ten times as long to make."""


class Checker:
    """Answer from memory while it may be trusted, wait for a flight when it may not."""

    def __init__(
        self, recall: Recall, refresher: Refresher, vigil: Vigil, *, trust: Trust, policies: Policies, clock: Clock
    ) -> None:
        self._decisions = {(reason, source): 0 for reason in Reason for source in Source}
        self.hits = (Count(), Count())
        self.policy_answers = dict.fromkeys(Policy, 0)
        self.ages = Tally(AGES)
        self.durations = Tally(DURATIONS)
        self.freshness = trust.freshness
        self.policies = policies
        self.accounts: set[str] = set()
        self.span: Spans = no_span
        self._recall = recall
        self._cache = recall.cache
        self._refresher = refresher
        self._vigil = vigil
        self._trust = trust
        self._watermarks = trust.watermarks
        self._clock = clock

    def now(self) -> float:
        """Return the time, in Unix seconds, for those who ask about several customers at once."""
        return self._clock()

    def sure(self, customer_id: str, now: float) -> Sure | None:
        """Return a list that is known, fresh, not due and without news, of a customer of the key's own account.

        Then ``glance`` would find the same for who wishes nothing, and begin nothing. This is its fast way for what is
        asked most; None says nothing.
        """
        snapshot = self._cache.get((customer_id, None))  # equals the Customer, and takes a quarter of its time to make
        if snapshot is None or snapshot.dirty is not None or snapshot.unknown is not None:
            return None
        as_of = snapshot.taken_at
        since, until = self._watermarks.own
        if since > as_of:
            return None
        audit_at = as_of + self._trust.unread_for
        if until > as_of:  # noqa: PLR1730 -- ``max`` takes five times as long
            as_of = until
        age, oldest = now - as_of, self._trust.undoubted_for
        if audit_at - as_of < oldest:  # noqa: PLR1730 -- see above
            oldest = audit_at - as_of
        return (snapshot, as_of, age, oldest) if 0.0 <= age <= oldest else None

    def hit(self, customer_id: str, lookup_key: str) -> tuple[bool, Sure] | None:
        """Answer a question from a list that is ``sure``: entitled or not."""
        sure = self.sure(customer_id, self._clock())
        if sure is None:
            return None
        snapshot, _, age, _ = sure
        entitled = lookup_key in snapshot.plan.lookup_keys
        self.hits[entitled].n += 1
        self.ages.add(age)
        return entitled, sure

    def count(self, ages: list[float], *, entitled: int) -> None:
        """Count answers that others gave from lists that were ``sure``: the age of each, and how many said yes."""
        self.hits[True].n += entitled
        self.hits[False].n += len(ages) - entitled
        self.ages.add_all(ages)

    def held(self, customer: Customer) -> Snapshot | None:
        """Return what is in memory, however old, and begin nothing."""
        return self._cache.get(customer)

    def look(self, customer: Customer, wishes: Wishes = NO_WISHES) -> tuple[Finding, float] | None:
        """Return a snapshot out of memory that this caller may be answered from at once; none of an unknown customer.

        With it goes the age in seconds up to which others may be, as long as memory stays as it is: -1 for this one only.
        Nothing is counted yet.
        """
        sure = self.sure(customer.id, self._clock()) if wishes is NO_WISHES and customer.account is None else None
        if sure is None:
            snapshot = self.held(customer)
            is_known = snapshot is not None and snapshot.unknown is None  # else nothing is to be begun here either
            finding, oldest = self.glance(customer, wishes) if is_known else None, -1.0
        else:
            snapshot, as_of, age, oldest = sure
            finding = Finding(snapshot, Source.MEMORY, as_of, age, stale=False)
        return None if finding is None else (finding, oldest)

    @property
    def decisions(self) -> dict[tuple[Reason, Source], int]:
        """Answers given, by reason and source."""
        found = dict(self._decisions)
        for reason, count in zip((Reason.NOT_ENTITLED, Reason.ENTITLED), self.hits, strict=True):
            found[reason, Source.MEMORY] += count.n
        return found

    def glance(self, customer: Customer, wishes: Wishes = NO_WISHES, lookup_key: str | None = None) -> Finding | None:
        """Return what memory may answer at once, starting a refresh when it is due; None when it may not answer.

        How old that may be depends on the ``lookup_key``; without one, what is found must do for all of them.
        """
        snapshot = self._cache.get(customer)
        if snapshot is None:
            return None
        now, as_of = self._clock(), self._trust.verified_at(snapshot)
        age = max(0.0, now - as_of)
        fresh_for, stale_for = self._trust.bounds(snapshot, lookup_key)
        if age > wishes.oldest(fresh_for, stale_for):
            return None
        if snapshot.dirty is not None:
            return Finding(snapshot, Source.MEMORY, as_of, age, stale=True) if wishes.only_if_cached else None
        if customer.account is not None and len(self.accounts) < MOST_ACCOUNTS:
            self.accounts.add(customer.account)
        stale = age > fresh_for
        if stale or self._trust.is_due(snapshot, now, age):
            self._refresher.nudge(customer)
        return Finding(snapshot, Source.MEMORY, as_of, age, stale)

    async def find(self, customer: Customer, wishes: Wishes = NO_WISHES) -> Finding:
        """Return a snapshot that this caller may be answered from, waiting at most the deadline for a flight.

        :raises NoAnswer: when there is none.
        """
        finding = self.glance(customer, wishes)
        if finding is None:
            with self._leaving(wishes) as span:
                finding = await self._learn(customer, wishes, self.freshness.deadline)
                span.attributes |= {"source": finding.source, "flight": self._last_outcome(customer)}
        self.ages.add(finding.age)
        return finding

    def answer(self, customer: Customer, lookup_key: str, wishes: Wishes = NO_WISHES) -> Decision | None:
        """Answer one question from memory; None when memory may not answer it."""
        finding = self.glance(customer, wishes, lookup_key)
        return None if finding is None else self._count(decide(finding, lookup_key))

    async def check(
        self, customer: Customer, lookup_key: str, wishes: Wishes = NO_WISHES, *, wait: float = 0.0
    ) -> Decision:
        """Answer one question, waiting for a flight where need be; without anything to answer from, by policy.

        With ``wait``, an answer other than "entitled" is put off for up to so many seconds: until a look at Stripe, or
        news, shows that the customer is. In the end it is what the same question without waiting would be told. Who
        wants an answer from memory only has nothing to wait for, and who comes when too many wait already does not.
        """
        began = self._clock()
        if wait and (wishes.only_if_cached or not self._vigil.has_room()):
            wait = 0.0
        finding = self.glance(customer, wishes, lookup_key)
        decision = None if finding is None else decide(finding, lookup_key)
        if decision is None or (wait and decision.reason is not Reason.ENTITLED):
            with self._leaving(wishes) as span:
                decision = decision or await self._learnt(customer, lookup_key, wishes, self.freshness.deadline)
                decision = await self._grant(decision, wishes, began, began + wait)
                span.attributes |= {"reason": decision.reason, "source": decision.source}
                span.attributes["flight"] = self._last_outcome(customer)
            self.durations.add(self._clock() - began)
        return self._count(decision)

    async def _grant(self, decision: Decision, wishes: Wishes, began: float, until: float) -> Decision:
        """Wait for a better answer than ``decision``, if there is any to be had until then."""
        customer, lookup_key = decision.customer, decision.lookup_key
        while self._vigil.goes_on and decision.reason is not Reason.ENTITLED and (left := until - self._clock()) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._vigil.look(customer)
            seen = self._cache.get(customer)
            if seen is not None and seen.taken_at >= began:  # no caller can wish for more
                decision = decide(self._found(seen, Source.UPSTREAM), lookup_key)
            else:
                seen_at_once = self.glance(customer, wishes, lookup_key)
                if seen_at_once is None:
                    decision = await self._learnt(customer, lookup_key, wishes, within=0.0)
                else:
                    decision = decide(seen_at_once, lookup_key)
        return decision

    def _leaving(self, wishes: Wishes) -> AbstractContextManager[Span]:
        """Trace that the answer leaves memory, unless the caller does not want it to."""
        return no_span(None) if wishes.only_if_cached else self.span(None)

    def _last_outcome(self, customer: Customer) -> str:
        flight = self._refresher.last_flight(customer)
        return "none" if flight is None else flight.outcome or "under way"

    async def _learnt(self, customer: Customer, lookup_key: str, wishes: Wishes, within: float) -> Decision:
        try:
            finding = await self._learn(customer, wishes, within, lookup_key)
        except NoAnswer as missing:
            return decide_by_policy(customer, lookup_key, self._policy(lookup_key, wishes), missing)
        return decide(finding, lookup_key)

    def _count(self, decision: Decision) -> Decision:
        self._decisions[decision.reason, decision.source] += 1
        if decision.finding is not None:
            self.ages.add(decision.finding.age)
        if decision.policy is not None:
            self.policy_answers[decision.policy] += 1
        return decision

    def aged(self, decision: Decision) -> Decision:
        """Return ``decision`` with the age that it has by now: for answers that waited for others."""
        found = decision.finding
        if found is None:
            return decision
        now = self._clock()
        age, (fresh_for, _) = max(0.0, now - found.as_of), self._trust.bounds(found.snapshot)
        return decision._replace(finding=found._replace(age=age, stale=found.stale or age > fresh_for))

    async def refresh(self, customer: Customer) -> Finding:
        """Ask Stripe again, whatever is in memory: the answer is from a flight that took off after this call.

        :raises NoAnswer: when the flight came to nothing within the deadline.
        """
        with self.span(None) as span:
            try:
                finding = await self._learn(customer, Wishes(max_age=0.0), self.freshness.deadline)
            except NoAnswer as missing:
                code = missing.code if missing.cause is None else missing.cause.code
                raise NoAnswer(code, missing.detail, age=missing.age, cause=missing.cause) from None
            span.attributes |= {"source": finding.source, "flight": self._last_outcome(customer)}
        self.ages.add(finding.age)
        return finding

    def state(self, customer: Customer) -> tuple[State, Finding | None]:
        """Return how far what is in memory may be trusted now, and what it is, starting nothing."""
        snapshot = self._cache.get(customer)
        state = self._trust.state(snapshot, self._clock())
        return state, None if snapshot is None else self._found(snapshot, Source.MEMORY)

    def _policy(self, lookup_key: str, wishes: Wishes) -> Policy:
        if wishes.default is not None:
            return wishes.default
        if wishes.max_age is not None or wishes.only_if_cached:
            return Policy.ERROR  # who sets a bound wants to know that it was missed
        return self.policies.matching(lookup_key)

    async def _learn(self, customer: Customer, wishes: Wishes, within: float, lookup_key: str | None = None) -> Finding:
        """Look into the store, if memory knows nothing, and then wait for a flight."""
        began = self._clock()
        if within > 0 and wishes.max_age != 0 and self._cache.get(customer) is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(within if wishes.only_if_cached else min(within, SLOW_STORE)):
                    await self._recall.bring(customer)
            finding = self.glance(customer, wishes, lookup_key)
            if finding is not None:
                return finding._replace(source=Source.STORE)
            within -= self._clock() - began
        return await self._ask(customer, wishes, within, lookup_key)

    async def _ask(self, customer: Customer, wishes: Wishes, within: float, lookup_key: str | None) -> Finding:
        """Wait for a flight: ``within`` so many seconds when memory may not answer, ``dirty_wait`` when it is dirty."""
        last_resort = partial(self._last_resort, customer, wishes, lookup_key)
        began, held, source = self._clock(), self._cache.get(customer), Source.MEMORY
        if wishes.only_if_cached:
            age = None if held is None else self._found(held, source).age
            raise NoAnswer("not_cached", "nothing in memory is as young as the request wants", age=age)
        if within <= 0:
            return last_resort(self._refresher.trouble(customer) or TimedOut("no time is left"))
        oldest = wishes.oldest(*self._trust.bounds(held, lookup_key))
        try:
            async with asyncio.timeout(within):
                if held is None or began - self._trust.verified_at(held) > oldest:
                    held, source = await self._refresher.renew(customer, since=began - oldest), Source.UPSTREAM
                    held = self._cache.get(customer) or held  # there may have been news since it landed
                if held.dirty is not None and (newer := await self._newer(held)) is not None:
                    held, source = newer, Source.UPSTREAM
        except TimeoutError:
            late = self._refresher.trouble(customer) or TimedOut(f"Stripe did not answer within {within:g} s")
            return last_resort(late)
        except UpstreamError as error:
            return last_resort(error)
        finding = self._found(self._cache.get(customer) or held, source)
        if source is Source.MEMORY and finding.age > oldest:  # it was young enough before the wait
            return last_resort(TimedOut("nothing was learnt after the news in time"))
        return finding

    async def _newer(self, held: Snapshot) -> Snapshot | None:
        """Wait a little for a list that was taken after the news; not at all while reading it is known to fail.

        It is on the schedule. This caller has an old answer, so it takes no place in the queue for the budget.
        """
        customer, newer = held.customer, None
        with suppress(TimeoutError):
            async with asyncio.timeout(self.freshness.dirty_wait):
                while self._refresher.trouble(customer) is None:
                    self._refresher.nudge(customer)
                    landing = self._refresher.landing(customer)
                    await asyncio.wait([landing])  # which leaves it alone when time is over
                    newer = landing.result() or newer
                    if newer is not None and newer.dirty is None:
                        return newer
                self._refresher.nudge(customer)
        return newer

    def _last_resort(self, customer: Customer, wishes: Wishes, lookup_key: str | None, cause: UpstreamError) -> Finding:
        snapshot = self._cache.get(customer)
        if snapshot is None:
            raise NoAnswer(cause.code, str(cause), cause=cause)
        finding = self._found(snapshot, Source.MEMORY)
        fresh_for, stale_for = self._trust.bounds(snapshot, lookup_key)
        if finding.age <= max(wishes.oldest(fresh_for, stale_for), wishes.oldest_on_error(fresh_for)):
            return finding._replace(stale=True)
        code = cause.code if wishes.max_age is None else "too_old"
        raise NoAnswer(code, str(cause), age=finding.age, cause=cause)

    def _found(self, snapshot: Snapshot, source: Source) -> Finding:
        now, as_of = self._clock(), self._trust.verified_at(snapshot)
        return Finding(snapshot, source, as_of, max(0.0, now - as_of), self._trust.is_stale(snapshot, now))
