"""What is remembered: one snapshot per customer, bounded in bytes, never going back in time.

Most customers of an application hold one of a few plans, so the list of features is kept once per plan and counted
once; features that several plans have are one as well. What remains is what a customer costs. With five entitlements,
and ids as long as Stripe's (a customer's 18 characters, an entitlement's 41), these are bytes on CPython 3.11:

    272  ids of the entitlements, packed into one text
     80  the snapshot
     80  the customer's id, a text
     64  the customer, a named tuple
     32  when the list was taken, a float
     32  its place in the container's order
     42  its part of the container's table, at best; 84 when that has just grown, up to 168 where customers come and go
    ---
    602  at best: 1,000,000 take 618 each, and the process grows by 621 (``tests/bench/memory.py``)

``weigh`` adds up all but the container, which is asked for its size. A table that is full is made anew, with a power of
two of slots, at least three times as many as there are customers. Room for that is kept free (``container_of``), so
that nobody has to go when it comes.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import replace
from sys import getsizeof
from typing import Generic, TypeVar

from sidecar.core.watermarks import Watermarks
from sidecar.model import Customer, Dirty, Feature, Plan, Snapshot

T = TypeVar("T")

Key = tuple[str, str | None]
"""What a customer is found by: itself, or any tuple that equals it."""

POINTER = 8
SMALL, GRAIN = 512, 16
"""Python's allocator hands out up to 512 bytes in steps of 16; what is larger comes from malloc, which has the same
steps and keeps 8 bytes before each block (glibc)."""
EMPTY_TEXT = getsizeof("")
NOT_ASCII = 32
"""Bytes more of a text that is not: two fields, and the ends of both forms."""
EMPTY_CONTAINER = getsizeof(OrderedDict())
FEWEST_SLOTS, SLOT, NODE = 8, 28, 32
"""Bytes of a slot: an index of 4, two thirds of an entry of 24, a pointer; and of an entry's place in the order."""
PER_PLAN = 146
"""Bytes for keeping a plan or a feature once: a tuple of three and a number (64 + 32), a dictionary's entry (30 to 60,
by how full it is: 50)."""


def allocated(size: int) -> int:
    """Return what an object of ``size`` bytes takes from the allocator."""
    return -(-(size if size <= SMALL else size + POINTER) // GRAIN) * GRAIN


def of_text(text: str) -> int:
    """Return the bytes of a text: never fewer than it takes, and the same whenever it is asked.

    ``getsizeof`` gives more once the UTF-8 of a text that is not ASCII was asked for: up to four bytes a character
    then, beside as many before.
    """
    return allocated(EMPTY_TEXT + (len(text) if text.isascii() else NOT_ASCII + 8 * len(text)))


def of_tuple(named: tuple[object, ...]) -> int:
    """Return the bytes of a named tuple without its members: it is one pointer longer than ``getsizeof`` says."""
    return allocated(getsizeof(named) + POINTER)


FLOAT = allocated(getsizeof(0.0))


def container_of(customers: int) -> int:
    """Return the bytes that the container may take with so many, whoever came and went.

    A table without a free entry is made anew, with three times as many slots as there are entries in use, rounded up to
    a power of two (CPython, ``GROWTH_RATE``).
    """
    slots = max(FEWEST_SLOTS, 1 << (3 * customers - 1).bit_length()) if customers else 0
    return SLOT * slots + NODE * customers


def weigh(snapshot: Snapshot) -> int:
    """Return the bytes that a snapshot takes, without its (shared) plan and without its entry in the container."""
    customer, unknown = snapshot.customer, snapshot.unknown
    size = allocated(getsizeof(snapshot)) + FLOAT + of_tuple(customer) + of_text(customer.id)
    if customer.account is not None:
        size += of_text(customer.account)
    if snapshot.packed_ids:
        size += of_text(snapshot.packed_ids)
    if unknown is not None:
        size += of_tuple(unknown) + of_text(unknown.message) + allocated(getsizeof(unknown.status))
    if snapshot.dirty is not None:  # up to when it was known to be true is a float of the list's or the feed's
        size += of_tuple(snapshot.dirty) + FLOAT
    return size


def weigh_feature(feature: Feature) -> int:
    """Return the bytes that a feature takes, once for all plans that have it."""
    return PER_PLAN + of_tuple(feature) + sum(map(of_text, feature))


def weigh_plan(plan: Plan) -> int:
    """Return the bytes that a plan takes, once for all its customers, without its features."""
    return PER_PLAN + sum(allocated(getsizeof(part)) for part in (plan, plan.features, plan.lookup_keys))


class Shared(Generic[T]):
    """Equal things, each kept once while somebody holds it."""

    def __init__(self, weigh: Callable[[T], int]) -> None:
        self.bytes = 0
        self._weigh = weigh
        self._held: dict[T, tuple[T, int, int]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, thing: T) -> bool:
        return thing in self._held

    def share(self, thing: T) -> T:
        """Return the kept one that equals ``thing``, and count one more holder."""
        kept, weight, holders = self._held.get(thing) or (thing, self._weigh(thing), 0)
        if not holders:
            self.bytes += weight
        self._held[kept] = (kept, weight, holders + 1)
        return kept

    def release(self, thing: T) -> bool:
        """Count one holder less, and forget the thing with its last; tell whether that was the last."""
        kept, weight, holders = self._held[thing]
        if holders > 1:
            self._held[kept] = (kept, weight, holders - 1)
            return False
        del self._held[kept]
        self.bytes -= weight
        return True


class Plans:
    """The distinct plans in use, and their features, which several plans may have."""

    def __init__(self) -> None:
        self._plans = Shared(weigh_plan)
        self._features = Shared(weigh_feature)

    def __len__(self) -> int:
        return len(self._plans)

    @property
    def bytes(self) -> int:
        """Bytes in use."""
        return self._plans.bytes + self._features.bytes

    def share(self, plan: Plan) -> Plan:
        """Return the kept plan that equals ``plan``, and count one more holder."""
        if plan not in self._plans:
            plan = Plan.of(tuple(map(self._features.share, plan.features)))
        return self._plans.share(plan)

    def release(self, plan: Plan) -> None:
        """Count one holder less; with its last a plan is forgotten, and lets go of its features."""
        if self._plans.release(plan):
            for feature in plan.features:
                _ = self._features.release(feature)


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
        self._weights = 0
        self._kept: OrderedDict[Key, Snapshot] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def bytes(self) -> int:
        """Bytes in use, by our own count."""
        return self._weights + self._plans.bytes + self._container()

    def get(self, customer: Key) -> Snapshot | None:
        """Return what is remembered, and mark it as just asked for."""
        snapshot = self._kept.get(customer)
        if snapshot is not None:
            self._kept.move_to_end(customer)
        return snapshot

    def snapshots(self) -> Iterator[Snapshot]:
        """Yield all that is remembered, each list as it is when its turn comes; this counts as no use."""
        for customer in list(self._kept):
            snapshot = self._kept.get(customer)
            if snapshot is not None:
                yield snapshot

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
        """Put ``snapshot`` where ``old`` is, or else last; ``old`` was just asked for, so it is last as well."""
        for tell in self.then:
            tell()
        plan = self._plans.share(snapshot.plan)
        # What the container has as its key; one that is equal would be there beside it.
        customer = snapshot.customer if old is None else old.customer
        if old is not None:
            self._release(old)
        self._kept[customer] = snapshot = replace(snapshot, customer=customer, plan=plan)
        self._weights += weigh(snapshot)
        if self._is_full() and self._is_too_large(snapshot):
            self._forget(self._kept.pop(customer))  # the others need not make room in vain
        while self._is_full():
            self._forget(self._kept.popitem(last=False)[1])

    def _container(self) -> int:
        return getsizeof(self._kept) - EMPTY_CONTAINER

    def _is_full(self) -> bool:
        """Tell whether somebody has to go: also when the container would be too large once it is made anew."""
        grown = max(0, container_of(len(self._kept)) - self._container())
        return self.bytes + grown > self.max_bytes

    def _is_too_large(self, snapshot: Snapshot) -> bool:
        """Tell whether there would be no room if all others went: the container's table would not get smaller by it."""
        plan, table = snapshot.plan, self._container() - NODE * len(self._kept)
        size = weigh(snapshot) + weigh_plan(plan) + sum(map(weigh_feature, set(plan.features)))
        return size + NODE + table > self.max_bytes

    def _release(self, snapshot: Snapshot) -> None:
        self._plans.release(snapshot.plan)
        self._weights -= weigh(snapshot)

    def _forget(self, snapshot: Snapshot) -> None:
        self._release(snapshot)
        self.evictions += 1
        if not self._kept:
            self._kept.clear()  # only this makes the container small again


def with_news(snapshot: Snapshot, dirty: Dirty | None) -> Snapshot:
    """Return ``snapshot``, dirty as its predecessor is, unless it was asked for after the news was heard."""
    if dirty is None or snapshot.taken_at >= dirty.heard_at:
        return snapshot
    vouched_for = snapshot.taken_at if snapshot.unknown is not None else dirty.verified_at
    return replace(snapshot, dirty=Dirty(dirty.heard_at, max(snapshot.taken_at, vouched_for)))
