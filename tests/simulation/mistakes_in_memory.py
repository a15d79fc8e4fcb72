"""Mutations of the heart: what is remembered, vouched for and answered."""

from contextlib import suppress
from dataclasses import replace

from sidecar.core import cache
from sidecar.core.cache import Cache
from sidecar.core.checker import Checker
from sidecar.core.news import News
from sidecar.core.refresher import Refresher
from sidecar.core.schedule import Schedule
from sidecar.core.trust import Trust
from sidecar.core.watermarks import Watermarks
from sidecar.errors import UpstreamError
from sidecar.kit.singleflight import SingleFlight
from tests.simulation.mutations import mutation


@mutation(Refresher, "heard", breaks="Truth")
def a_landing_clears_news(_heard):
    """A flight that took off before the news clears it."""
    return lambda self, customer, at: self._cache.mark(customer, at)


@mutation(cache, "with_news", breaks="Truth", of="a-landing-clears-news")
def nothing_stays_dirty(_with_news):
    """News that the cache knows of is forgotten with the next list."""
    return lambda snapshot, _dirty: snapshot


@mutation(News, "_effect", breaks="News")
def a_flight_swallows_news(effect):
    """News of a customer whose list is being read is left to that reading."""

    def effect_unless_flying(self, event_id, customer):
        if event_id not in self._heard and self._refresher.is_flying(customer):
            self._heard[event_id] = None
            return "not_held"
        return effect(self, event_id, customer)

    return effect_unless_flying


@mutation(Refresher, "heard", breaks="News")
def news_counts_once(heard):
    """News of a customer who is dirty already is ignored."""

    def heard_once(self, customer, at):
        held = self._cache.get(customer)
        return (held is not None and held.dirty is not None) or heard(self, customer, at)

    return heard_once


@mutation(Cache, "mark", breaks="News")
def news_marks_nothing(_mark):
    """News is followed up, but until then the old list is answered as if nothing had been heard."""
    return lambda self, customer, _at: self.get(customer) is not None


@mutation(Schedule, "_read", breaks="Liveness")
def a_failed_reading_is_not_repeated(_read):
    """A dirty customer whose reading failed is forgotten."""

    async def read_once(self, customer, since):
        with suppress(UpstreamError):
            _ = await self._refresher.renew(customer, since=since)

    return read_once


@mutation(Refresher, "renew", breaks="Age")
def any_flight_will_do(renew):
    """A caller who wants to know what is true from now on is given a flight that took off before."""
    return lambda self, customer, **_: renew(self, customer)


@mutation(SingleFlight, "join", breaks="One flight")
def everybody_flies(join):
    """Each who asks starts a flight of their own."""

    def join_nobody(self, key):
        self._flying.pop(key, None)
        return join(self, key)

    return join_nobody


@mutation(Cache, "put", breaks="Forward")
def the_cache_goes_back(_put):
    """The cache takes whatever it is given last."""

    def put_anything(self, snapshot):
        old = self.get(snapshot.customer)
        self._place(snapshot if old is None else cache.with_news(snapshot, old.dirty), old)
        return True

    return put_anything


@mutation(Cache, "_place", breaks="Bound")
def memory_may_be_twice_as_large(place):
    """Room is made too late."""

    def place_generously(self, snapshot, old):
        self.max_bytes *= 2
        place(self, snapshot, old)
        self.max_bytes //= 2

    return place_generously


@mutation(Watermarks, "verified_at", breaks="Truth")
def the_dirty_are_vouched_for(verified_at):
    """A watermark vouches for lists that are known to have changed."""
    return lambda self, snapshot: verified_at(self, replace(snapshot, dirty=None))


@mutation(Watermarks, "verified_at", breaks="Truth")
def the_unknown_are_vouched_for(verified_at):
    """A watermark vouches for Stripe's not knowing a customer."""
    return lambda self, snapshot: verified_at(self, replace(snapshot, unknown=None))


@mutation(Watermarks, "verified_at", breaks="Truth")
def spans_have_no_beginning(verified_at):
    """A watermark vouches for lists from before a gap."""

    def verified_by_the_last(self, snapshot):
        until = self.until(snapshot.customer.account)
        if snapshot.dirty or snapshot.unknown or until is None:
            return verified_at(self, snapshot)
        return max(snapshot.taken_at, until)

    return verified_by_the_last


@mutation(Watermarks, "begin", breaks="Forward", skipped=1100)
def a_gap_ends_the_trust_in_what_was(begin):
    """What was vouched for before a gap no longer is."""

    def begin_anew(self, account, since):
        self._spans.pop(account, None)
        begin(self, account, since)

    return begin_anew


@mutation(Trust, "bounds", breaks="Age")
def the_unknown_are_remembered_for_long(bounds):
    """A customer whom Stripe does not know is remembered as long as any other."""
    return lambda self, _snapshot, lookup_key=None: bounds(self, None, lookup_key)


@mutation(Trust, "bounds", breaks="Age")
def a_list_goes_by_the_bound_of_other_keys(bounds):
    """A list answers for every lookup key, and goes by a bound that is none of the smallest."""
    return lambda self, snapshot, lookup_key=None: bounds(self, snapshot, lookup_key or "key-0")


@mutation(Trust, "bounds", breaks="Age")
def every_key_has_the_same_bound(bounds):
    """A check goes by the bound of what no glob matches."""

    def bounds_of_others(self, snapshot, lookup_key=None):
        return bounds(self, snapshot, None if lookup_key is None else "key-0")

    return bounds_of_others


@mutation(Checker, "glance", breaks="Stale")
def the_old_is_not_marked(glance):
    """An old answer looks like a fresh one."""

    def glance_unmarked(*question):
        found = glance(*question)
        return None if found is None else found._replace(stale=False)

    return glance_unmarked


@mutation(Checker, "_last_resort", breaks="Age")
def an_old_answer_is_better_than_none(_last_resort):
    """When Stripe cannot be asked, whatever is in memory is answered."""

    def whatever_there_is(self, customer, wishes, lookup_key, cause):
        held = self._cache.get(customer)
        if held is None:
            return _last_resort(self, customer, wishes, lookup_key, cause)
        return self._found(held, "memory")

    return whatever_there_is
