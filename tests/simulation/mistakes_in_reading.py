"""Mutations of the way to Stripe: lists, events, the budget."""

from contextlib import suppress
from dataclasses import replace

from sidecar.errors import CursorVanished, OverBudget
from sidecar.kit.bucket import Bucket
from sidecar.kit.limiter import Limiter
from sidecar.model import Plan, Snapshot, packed
from sidecar.stripe.client import StripeClient
from sidecar.stripe.events import Sweep
from sidecar.stripe.feed import Ears, Feed
from sidecar.stripe.pages import Page, Reading
from tests.simulation.mutations import mutation


@mutation(Reading, "take", breaks="Whole")
def a_page_is_a_list(_take):
    """The first page is taken for the whole list."""

    def take_for_all(self, page):
        plan = Plan.of(tuple(one.feature for one in page.entitlements))
        return Snapshot(self._customer, page.asked_at, plan, packed([one.id for one in page.entitlements]))

    return take_for_all


@mutation(StripeClient, "_page", breaks="Whole")
def a_vanished_cursor_is_the_end(page):
    """What was read before the cursor vanished is taken for the whole list."""

    async def page_or_end(self, params, account, flight):
        try:
            return await page(self, params, account, flight)
        except CursorVanished:
            return Page((), has_more=False, asked_at=self._clock())

    return page_or_end


@mutation(StripeClient, "fetch", breaks="Whole")
def a_list_is_from_when_it_came(fetch):
    """A list claims to be from when all of it had been read, not from before."""

    async def fetch_late(self, customer, flight):
        return replace(await fetch(self, customer, flight), taken_at=self._clock())

    return fetch_late


@mutation(Limiter, "take", breaks="Budget")
def the_budget_never_ends(take):
    """Whoever asks for a token gets one at once."""

    async def take_at_once(self, urgency, *, within):
        with suppress(OverBudget):
            await take(self, urgency, within=0.0)

    return take_at_once


@mutation(Limiter, "_next", breaks="Liveness")
def callers_leave_nothing_to_the_feed(_next):
    """The most urgent are served as long as there are any."""
    return lambda self: max(self._queue, key=lambda waiter: waiter.urgency)


@mutation(Limiter, "slow_down", breaks="Throttling")
def a_refusal_does_not_slow(_slow_down):
    """Stripe's rate limiter is asked again as if it had said nothing."""
    return lambda *_, **__: None


@mutation(Bucket, "slow_down", breaks="Throttling")
def what_is_in_hand_is_kept(slow_down):
    """The rate is halved, but what was saved up is spent all the same."""

    def slow_down_later(self, *refusal, **more):
        tokens = self.tokens
        slow_down(self, *refusal, **more)
        self._tokens = tokens

    return slow_down_later


@mutation(Limiter, "take_spare", breaks="Budget")
def spare_requests_are_free(_take_spare):
    """A refresh that nobody waits for is not counted against the budget."""
    return lambda _: True


@mutation(Feed, "__init__", breaks="Truth")
def the_watermark_has_no_lag(init):
    """A poll vouches for all that happened before it, although an event may become visible later."""

    def init_without_lag(self, read, ears, pace, **rest):
        def advance(account, until):
            ears.advance(account, until + pace.lag)

        init(self, read, Ears(ears.hear, ears.begin, advance), pace, **rest)

    return init_without_lag


@mutation(Feed, "_sweep", breaks="Truth")
def a_poll_vouches_up_to_its_end(sweep):
    """The watermark counts from when the last page had come, not from before the first was asked for."""

    async def sweep_until_now(self, account, since):
        await sweep(self, account, since)
        return self._clock()

    return sweep_until_now


@mutation(Feed, "poll", breaks="Truth")
def a_failed_poll_moves_the_watermark(poll):
    """A poll that failed counts as one that found nothing."""

    async def poll_anyhow(self, account=None):
        began, complete = self._clock(), self.polls["complete"]
        found = await poll(self, account)
        if self.polls["complete"] == complete and account in self._until:
            self._ears.advance(account, began - self._lag)
        return found

    return poll_anyhow


@mutation(Feed, "_sweep", breaks="Truth")
def a_failed_sweep_forgets_what_it_heard(sweep):
    """Events are known as soon as they are read, but told only when all pages have been."""

    async def sweep_first(self, account, since):
        ears, told = self._ears, []
        known = self.__dict__.setdefault("known", set())

        def later(event_id, customer):
            if event_id not in known:
                known.add(event_id)
                told.append((event_id, customer))
            return True

        self._ears = replace(ears, hear=later)
        try:
            asked_at = await sweep(self, account, since)
        finally:
            self._ears = ears
        for event_id, customer in told:
            ears.hear(event_id, customer)
        return asked_at

    return sweep_first


@mutation(Sweep, "take", breaks="Truth")
def a_sweep_ends_with_its_first_page(take):
    """Only the newest page of events is read."""
    return lambda self, page: take(self, {**page, "has_more": False})


@mutation(Feed, "_sweep", breaks="Truth")
def sweeps_do_not_overlap(sweep):
    """A poll reads only what was created since the last one began."""
    return lambda self, account, since: sweep(self, account, since + 2 * self._lag)
