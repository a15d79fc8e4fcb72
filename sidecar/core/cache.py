"""What is remembered: one snapshot per customer, bounded in bytes, never going back in time.

Most customers of an application hold one of a few plans, so the list of features is kept once per plan and counted
once. What remains per customer (ids, times, the entries of the containers) is added up item by item by ``weigh``.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from sys import getsizeof

import cachetools
from cachetools import LRUCache

from sidecar.core.watermarks import Watermarks
from sidecar.model import Customer, Dirty, Feature, Plan, Snapshot

PER_ENTRY = 280
"""Bytes of the containers for one customer, at worst: 276 by tracemalloc on CPython 3.11 to 3.13, 165 at best.

cachetools holds three dictionaries: values, sizes, order. One that has just grown is a third full: with an index of 4
bytes a slot and 24 bytes for each of two thirds of the slots, that is 3 × (4 + 16) = 60 an entry, so 180. The ordered
one has a table of pointers beside it (3 × 8 = 24) and a node of 32 per entry. The size is an integer of 32. A named
tuple, here the customer, is allocated one pointer (8) longer than ``getsizeof`` says."""

PER_PLAN = 200
"""Bytes of the containers for one plan: an entry (60), a tuple of three (64) and its two integers (64), rounded up."""


def weigh(snapshot: Snapshot) -> int:
    """Return the bytes that a customer's entry takes, without its (shared) plan."""
    size = PER_ENTRY + getsizeof(snapshot) + getsizeof(snapshot.taken_at)
    size += getsizeof(snapshot.ids) + sum(map(getsizeof, snapshot.ids))
    size += getsizeof(snapshot.customer) + sum(map(getsizeof, filter(None, snapshot.customer)))
    if (unknown := snapshot.unknown) is not None:
        size += 8 + getsizeof(unknown) + getsizeof(unknown.message)
    if (dirty := snapshot.dirty) is not None:
        size += 8 + getsizeof(dirty) + sum(map(getsizeof, dirty))
    return size


def weigh_plan(plan: Plan) -> int:
    """Return the bytes that a plan takes, once for all its customers."""
    size = PER_PLAN + getsizeof(plan) + getsizeof(plan.features) + getsizeof(plan.lookup_keys)
    return size + sum(8 + getsizeof(feature) + sum(map(getsizeof, feature)) for feature in plan.features)


class Plans:
    """The distinct plans in use, each kept once while somebody holds it."""

    def __init__(self) -> None:
        self.bytes = 0
        self._holders: dict[tuple[Feature, ...], tuple[Plan, int, int]] = {}

    def __len__(self) -> int:
        return len(self._holders)

    def share(self, plan: Plan) -> Plan:
        """Return the kept plan that equals ``plan``, and count one more holder."""
        # Weighed once: a string grows when its UTF-8 is first asked for, but what goes must equal what came.
        kept, weight, holders = self._holders.get(plan.features) or (plan, weigh_plan(plan), 0)
        if not holders:
            self.bytes += weight
        self._holders[kept.features] = (kept, weight, holders + 1)
        return kept

    def release(self, plan: Plan) -> None:
        """Count one holder less, and forget the plan with its last."""
        kept, weight, holders = self._holders[plan.features]
        if holders > 1:
            self._holders[plan.features] = (kept, weight, holders - 1)
        else:
            del self._holders[plan.features]
            self.bytes -= weight


class Cache:
    """Snapshots by customer; the least recently asked go first when ``max_bytes`` are used up.

    The functions in ``then`` are called when something else is remembered than before.
    """

    def __init__(self, max_bytes: int, watermarks: Watermarks) -> None:
        self.max_bytes = max_bytes
        self.evictions = 0
        self.then: list[Callable[[], None]] = []
        self._watermarks = watermarks
        self._plans = Plans()
        self._kept: LRUCache[Customer, Snapshot] = LRUCache(max_bytes, getsizeof=weigh)

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def bytes(self) -> int:
        """Bytes in use, by our own count."""
        return int(self._kept.currsize) + self._plans.bytes

    def get(self, customer: Customer) -> Snapshot | None:
        """Return what is remembered, and mark it as just asked for."""
        try:
            return self._kept[customer]
        except KeyError:
            return None

    def snapshots(self) -> Iterator[Snapshot]:
        """Yield all that is remembered, each list as it is when its turn comes; this counts as no use."""
        for customer in list(self._kept):
            if customer in self._kept:
                yield cachetools.Cache.__getitem__(self._kept, customer)

    def put(self, snapshot: Snapshot) -> bool:
        """Remember ``snapshot`` unless what is there is newer, or known to be true up to later; tell whether it was.

        News that what is there was marked with stays, unless ``snapshot`` was taken after it. A snapshot that is larger
        than the whole bound is not kept, and neither is the older one it replaces.
        """
        old = self.get(snapshot.customer)
        if old is not None:
            snapshot = with_news(snapshot, old.dirty)
            verified_at = self._watermarks.verified_at
            if old.taken_at > snapshot.taken_at or verified_at(old) > verified_at(snapshot):
                return False
        self._place(snapshot, old)
        return True

    def mark(self, customer: Customer, heard_at: float) -> bool:
        """Mark what is remembered of ``customer`` as dirty, from ``heard_at`` on; tell whether there is anything."""
        old = self.get(customer)
        if old is None:
            return False
        self._place(replace(old, dirty=self.dirty(old, heard_at)), old)
        return True

    def dirty(self, snapshot: Snapshot, heard_at: float) -> Dirty:
        """Return what news makes of ``snapshot``: it is known to be true up to where it was before."""
        return Dirty(heard_at, self._watermarks.verified_at(snapshot))

    def _place(self, snapshot: Snapshot, old: Snapshot | None) -> None:
        if old is not None:
            self._plans.release(self._kept.pop(old.customer).plan)
        for tell in self.then:
            tell()
        snapshot = replace(snapshot, plan=self._plans.share(snapshot.plan))
        size = weigh(snapshot)
        if size + weigh_plan(snapshot.plan) > self.max_bytes:  # the others need not make room in vain
            self._forget(snapshot)
            return
        while self.bytes + size > self.max_bytes:
            self._forget(self._kept.popitem()[1])
        self._kept[snapshot.customer] = snapshot

    def _forget(self, snapshot: Snapshot) -> None:
        self._plans.release(snapshot.plan)
        self.evictions += 1


def with_news(snapshot: Snapshot, dirty: Dirty | None) -> Snapshot:
    """Return ``snapshot``, dirty as its predecessor is, unless it was asked for after the news was heard."""
    if dirty is None or snapshot.taken_at >= dirty.heard_at:
        return snapshot
    vouched_for = snapshot.taken_at if snapshot.unknown is not None else dirty.verified_at
    return replace(snapshot, dirty=Dirty(dirty.heard_at, max(snapshot.taken_at, vouched_for)))
