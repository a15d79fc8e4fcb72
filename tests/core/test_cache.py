"""What is remembered."""

import gc
import tracemalloc
from collections import OrderedDict
from dataclasses import replace
from itertools import count, islice
from sys import getsizeof

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sidecar.core.cache import (
    EMPTY_CONTAINER,
    NODE,
    Cache,
    Key,
    container_of,
    of_text,
    weigh,
    weigh_feature,
    weigh_plan,
)
from sidecar.core.watermarks import Watermarks
from sidecar.model import NOTHING, Customer, Dirty, Feature, Plan, Snapshot, Unknown, packed
from tests.core.fetching import ADA, BOB, held, unknown

ROOM = 1 << 20
HEADER = 64
"""Bytes of a container, besides those for each entry; nothing beside a thousand customers."""


def kept(cache: Cache, *customers: Customer) -> list[Customer]:
    """Return those of ``customers`` that are remembered."""
    return [customer for customer in customers if cache.get(customer) is not None]


def weight_of(*snapshots: Snapshot) -> int:
    """Return the bytes that these snapshots take together, without the container."""
    plans = {snapshot.plan for snapshot in snapshots}
    features = {feature for plan in plans for feature in plan.features}
    return sum(map(weigh, snapshots)) + sum(map(weigh_plan, plans)) + sum(map(weigh_feature, features))


def bound_for(*snapshots: Snapshot) -> int:
    """Return the smallest bound under which these snapshots are all kept; one or two use just as much."""
    return weight_of(*snapshots) + container_of(len(snapshots))


class TestOneCustomer:
    def test_nothing_is_remembered_of_a_stranger(self) -> None:
        """Who was never put is not there, and asking changes nothing."""
        cache = Cache(ROOM, Watermarks())
        assert cache.get(ADA) is None
        assert (len(cache), cache.bytes, cache.evictions) == (0, 0, 0)

    def test_what_is_put_is_remembered(self) -> None:
        """A snapshot comes back as it went in."""
        cache = Cache(ROOM, Watermarks())
        snapshot = held(ADA, 1.0, "seats", "export")
        assert cache.put(snapshot)
        assert cache.get(ADA) == snapshot
        assert len(cache) == 1

    def test_a_customer_is_found_by_any_tuple_that_equals_it(self) -> None:
        """Who only looks somebody up need not make a ``Customer``."""
        cache = Cache(ROOM, Watermarks())
        for customer in (ADA, BOB):
            cache.put(held(customer, 1.0, "seats"))
            assert cache.get((customer.id, customer.account)) is cache.get(customer)

    def test_the_same_id_in_another_account_is_another_customer(self) -> None:
        """A customer id means something only within its account."""
        cache = Cache(ROOM, Watermarks())
        cache.put(held(Customer("cus_1"), 1.0, "own"))
        cache.put(held(Customer("cus_1", "acct_1"), 1.0, "connected"))
        found = cache.get(Customer("cus_1"))
        assert found is not None
        assert found.plan.lookup_keys == {"own"}

    def test_an_older_snapshot_is_refused(self) -> None:
        """The cache never goes back in time, whatever order answers arrive in."""
        cache = Cache(ROOM, Watermarks())
        newer = held(ADA, 2.0, "seats")
        assert cache.put(newer)
        before = cache.bytes
        assert not cache.put(held(ADA, 1.0, "export"))
        assert cache.get(ADA) == newer
        assert cache.bytes == before

    def test_a_snapshot_of_the_same_moment_is_accepted(self) -> None:
        """Of two equally young lists the one that arrived last counts."""
        cache = Cache(ROOM, Watermarks())
        cache.put(held(ADA, 1.0, "seats"))
        assert cache.put(held(ADA, 1.0, "export"))
        found = cache.get(ADA)
        assert found is not None
        assert found.plan.lookup_keys == {"export"}

    def test_a_newer_snapshot_replaces(self) -> None:
        """Nothing of the older one is kept or counted."""
        cache = Cache(ROOM, Watermarks())
        cache.put(held(ADA, 1.0, "seats", "export", "sso"))
        cache.put(held(ADA, 2.0, "seats"))
        assert cache.bytes == bound_for(held(ADA, 2.0, "seats"))
        assert (len(cache), cache.evictions) == (1, 0)

    def test_a_customer_is_there_once(self) -> None:
        """A newer list takes over the customer of the older one, or both would be in memory, and one uncounted."""
        cache = Cache(ROOM, Watermarks())
        for moment in (1.0, 2.0):
            cache.put(held(Customer("cus_ada"), moment, "seats"))
        found = cache.get(ADA)
        assert found is not None
        assert found.customer is next(iter(cache._kept))

    def test_an_unknown_customer_is_remembered_as_such(self) -> None:
        """Stripe's refusal is part of what is remembered, and of its weight."""
        cache = Cache(ROOM, Watermarks())
        cache.put(unknown(ADA, 1.0))
        found = cache.get(ADA)
        assert found is not None
        assert isinstance(found.unknown, Unknown)
        assert cache.bytes > bound_for(Snapshot(ADA, 1.0))


class TestNews:
    """What is remembered may be marked: there was news since."""

    def test_there_is_nothing_to_mark_of_a_stranger(self) -> None:
        """Who is not remembered will be read anew anyway."""
        cache = Cache(ROOM, Watermarks())
        assert not cache.mark(ADA, 2.0)
        assert len(cache) == 0

    def test_a_mark_says_when_and_what_was_known_till_then(self) -> None:
        """The list itself stays; only this customer's."""
        cache = Cache(ROOM, Watermarks())
        for customer in (ADA, BOB):
            cache.put(held(customer, 1.0, "seats"))
        assert cache.mark(ADA, 2.0)
        assert cache.get(ADA) == replace(held(ADA, 1.0, "seats"), dirty=Dirty(heard_at=2.0, verified_at=1.0))
        assert cache.get(BOB) == held(BOB, 1.0, "seats")

    def test_what_the_feed_had_vouched_for_stays_known(self) -> None:
        """The moment is the watermark's at the time of the first news; later ones say nothing of a list in doubt."""
        watermarks = Watermarks()
        cache = Cache(ROOM, watermarks)
        cache.put(held(ADA, 1.0, "seats"))
        watermarks.begin(None, 0.0)
        for until, heard_at in [(5.0, 6.0), (7.0, 8.0)]:
            watermarks.advance(None, until)
            cache.mark(ADA, heard_at)
        found = cache.get(ADA)
        assert found is not None
        assert found.dirty == Dirty(heard_at=8.0, verified_at=5.0)

    @pytest.mark.parametrize("taken_at", [6.0, 7.0])
    def test_a_list_taken_after_the_news_is_clean(self, taken_at: float) -> None:
        """From the moment of the news on: whatever changed is in it."""
        cache = Cache(ROOM, Watermarks())
        cache.put(held(ADA, 1.0, "seats"))
        cache.mark(ADA, 6.0)
        assert cache.put(held(ADA, taken_at, "export"))
        assert cache.get(ADA) == held(ADA, taken_at, "export")

    @pytest.mark.parametrize(("taken_at", "verified_at"), [(2.0, 4.0), (5.0, 5.0)])
    def test_a_list_taken_before_the_news_is_marked_too(self, taken_at: float, verified_at: float) -> None:
        """It was on its way when the news came; it is known as of the later moment of both."""
        watermarks = Watermarks()
        cache = Cache(ROOM, watermarks)
        watermarks.begin(None, 0.0)
        watermarks.advance(None, 4.0)
        cache.put(held(ADA, 1.0, "seats"))
        cache.mark(ADA, 6.0)
        assert cache.put(held(ADA, taken_at, "export"))
        assert cache.get(ADA) == replace(held(ADA, taken_at, "export"), dirty=Dirty(6.0, verified_at))

    def test_what_is_known_to_be_true_up_to_later_stays(self) -> None:
        """A list that was taken later may be known only up to earlier: the feed vouches for no unknown customer."""
        watermarks = Watermarks()
        cache = Cache(ROOM, watermarks)
        cache.put(held(ADA, 1.0, "seats"))
        watermarks.begin(None, 0.0)
        watermarks.advance(None, 5.0)
        assert not cache.put(unknown(ADA, 4.0))
        assert cache.get(ADA) == held(ADA, 1.0, "seats")
        assert cache.put(unknown(ADA, 5.0))

    @pytest.mark.parametrize(("taken_at", "accepted"), [(3.0, False), (4.0, True), (5.0, True)])
    def test_nothing_vouches_for_an_unknown_customer_in_doubt(self, taken_at: float, *, accepted: bool) -> None:
        """One taken before the news is known as of its own moment; what is known up to later stays."""
        watermarks = Watermarks()
        cache = Cache(ROOM, watermarks)
        cache.put(held(ADA, 1.0, "seats"))
        watermarks.begin(None, 0.0)
        watermarks.advance(None, 4.0)
        cache.mark(ADA, 6.0)
        assert cache.put(unknown(ADA, taken_at)) is accepted
        found = cache.get(ADA)
        assert found is not None
        assert found.dirty == Dirty(6.0, taken_at if accepted else 4.0)
        assert (found.unknown is not None) is accepted

    def test_a_mark_is_counted(self) -> None:
        """In the bytes, for as long as it is there; it is nobody's eviction."""
        cache = Cache(ROOM, Watermarks())
        cache.put(held(ADA, 1.0, "seats"))
        clean = cache.bytes
        for heard_at in (2.0, 3.0):
            cache.mark(ADA, heard_at)
            assert cache.bytes == clean + 64 + 32, (
                "a tuple of two, and one float; the other is the list's or the feed's"
            )
        cache.put(held(ADA, 4.0, "seats"))
        assert (cache.bytes, cache.evictions, len(cache)) == (clean, 0, 1)

    def test_a_mark_finds_room(self) -> None:
        """The bound holds for it as well: the least recently asked makes room."""
        snapshots = [held(Customer(f"cus_{name}"), 1.0, "seats") for name in "ab"]
        cache = Cache(bound_for(*snapshots), Watermarks())
        for snapshot in snapshots:
            cache.put(snapshot)
        assert cache.mark(snapshots[1].customer, 2.0)
        assert kept(cache, *(snapshot.customer for snapshot in snapshots)) == [snapshots[1].customer]
        assert cache.evictions == 1


class TestPlans:
    def test_equal_plans_are_one_object(self) -> None:
        """A thousand customers of one plan share one list of features and one set of lookup keys."""
        cache = Cache(ROOM, Watermarks())
        for customer in (ADA, BOB):
            cache.put(held(customer, 1.0, "seats", "export"))
        ada, bob = cache.get(ADA), cache.get(BOB)
        assert ada is not None
        assert bob is not None
        assert ada.plan is bob.plan
        assert ada.plan.lookup_keys is bob.plan.lookup_keys
        assert ada.ids != bob.ids

    def test_a_shared_plan_is_counted_once(self) -> None:
        """The second customer adds what is its own."""
        cache = Cache(ROOM, Watermarks())
        cache.put(held(ADA, 1.0, "seats"))
        before = cache.bytes
        cache.put(held(BOB, 1.0, "seats"))
        assert cache.bytes - before == weigh(held(BOB, 1.0, "seats")) + container_of(2) - container_of(1)

    def test_features_are_shared_by_plans(self) -> None:
        """A feature that several plans have is one object, and is counted once, while any of them is held."""
        cache = Cache(ROOM, Watermarks())
        cache.put(held(ADA, 1.0, "seats", "export"))
        cache.put(held(BOB, 1.0, "export", "sso"))
        ada, bob = cache.get(ADA), cache.get(BOB)
        assert ada is not None
        assert bob is not None
        assert ada.plan.features[1] is bob.plan.features[0]
        assert next(iter(bob.plan.lookup_keys & {"export"})) is ada.plan.features[1].lookup_key
        assert cache.bytes == bound_for(ada, bob)
        cache.put(Snapshot(ADA, 2.0))
        assert cache.bytes == bound_for(Snapshot(ADA, 2.0), bob)

    def test_another_order_is_another_plan(self) -> None:
        """Stripe's order is kept, since ids are matched to features by it."""
        cache = Cache(ROOM, Watermarks())
        cache.put(held(ADA, 1.0, "seats", "export"))
        cache.put(held(BOB, 1.0, "export", "seats"))
        ada, bob = cache.get(ADA), cache.get(BOB)
        assert ada is not None
        assert bob is not None
        assert ada.plan is not bob.plan

    def test_a_plan_goes_with_its_last_holder(self) -> None:
        """While one customer has it, it stays; after that nothing of it is counted."""
        cache = Cache(ROOM, Watermarks())
        for customer in (ADA, BOB):
            cache.put(held(customer, 1.0, "seats"))
        cache.put(Snapshot(ADA, 2.0))
        assert cache.bytes == bound_for(Snapshot(ADA, 2.0), held(BOB, 1.0, "seats"))
        cache.put(Snapshot(BOB, 2.0))
        assert cache.bytes == bound_for(Snapshot(ADA, 2.0), Snapshot(BOB, 2.0))

    def test_a_lookup_key_that_grows_does_not_wear_the_count_away(self) -> None:
        """Asking a string for its UTF-8 makes it larger for ``getsizeof``; what is taken away is what was added."""
        cache = Cache(ROOM, Watermarks())
        key = orjson.loads('"größe-plus"')
        cache.put(held(ADA, 1.0, key))
        orjson.dumps(key)
        cache.put(Snapshot(ADA, 2.0))
        assert cache.bytes == bound_for(Snapshot(ADA, 2.0))


class TestTheBound:
    def test_the_least_recently_asked_goes_first(self) -> None:
        """Asking keeps a customer; having been put early does not make it go."""
        snapshots = [held(Customer(f"cus_{name}"), 1.0, "seats") for name in "abc"]
        a, b, c = (snapshot.customer for snapshot in snapshots)
        cache = Cache(bound_for(*snapshots[:2]), Watermarks())
        cache.put(snapshots[0])
        cache.put(snapshots[1])
        cache.get(a)
        cache.put(snapshots[2])
        assert kept(cache, a, b, c) == [a, c]
        assert cache.evictions == 1

    def test_the_room_that_is_there_is_used(self) -> None:
        """Exactly as many bytes as the bound may be in use, the container's next size counted in."""
        snapshots = [held(Customer(f"cus_{number}"), 1.0, "seats", str(number)) for number in range(5)]
        for lacking in (0, 1):
            cache = Cache(bound_for(*snapshots) - lacking, Watermarks())
            for snapshot in snapshots:
                cache.put(snapshot)
            assert (len(cache), cache.evictions) == (5 - lacking, lacking)

    def test_a_large_one_displaces_as_many_as_it_must(self) -> None:
        """Eviction goes on until there is room, and takes their plans along."""
        large = held(ADA, 1.0, *(f"feature-{number}" for number in range(50)))
        cache = Cache(bound_for(large), Watermarks())
        small = [held(Customer(f"cus_{number}"), 1.0, f"own-{number}") for number in range(4)]
        for snapshot in small:
            cache.put(snapshot)
        cache.put(large)
        assert kept(cache, ADA, *(snapshot.customer for snapshot in small)) == [ADA]
        assert (cache.evictions, cache.bytes) == (4, cache.max_bytes)

    def test_what_exceeds_the_whole_bound_is_not_kept(self) -> None:
        """Neither is the older one it replaces, for that would be a step back; nobody else makes room for it."""
        large = held(ADA, 2.0, *(f"feature-{number}" for number in range(50)))
        cache = Cache(bound_for(large) - 1, Watermarks())
        cache.put(held(BOB, 1.0, "seats"))
        cache.put(held(ADA, 1.0, "seats"))
        assert cache.put(large)
        assert kept(cache, ADA, BOB) == [BOB]
        assert cache.evictions == 1
        assert cache.bytes == bound_for(held(BOB, 1.0, "seats"))

    def test_a_plan_that_exceeds_the_bound_alone_is_not_kept(self) -> None:
        """A plan counts for its first holder."""
        snapshot = held(ADA, 1.0, *(f"feature-{number}" for number in range(50)))
        cache = Cache(weigh_plan(snapshot.plan), Watermarks())
        assert cache.put(snapshot)
        assert (len(cache), cache.bytes, cache.evictions) == (0, 0, 1)


@given(st.lists(st.tuples(st.integers(1, 120), st.booleans()), max_size=12))
@example([(350_000, False)])
@example([(11_000, False), (60_000, True)])
def test_the_container_takes_no_more_than_was_planned_for(steps: list[tuple[int, bool]]) -> None:
    """Whether customers come or only take each other's place: else many would have to go when it grows."""
    container: OrderedDict[int, None] = OrderedDict()
    numbers = count()
    for times, is_turnover in steps:
        for number in islice(numbers, times):
            container[number] = None
            most = len(container)
            if is_turnover:
                container.popitem(last=False)
            assert getsizeof(container) - EMPTY_CONTAINER <= container_of(max(3, most)) + HEADER


CUSTOMERS = [Customer(f"cus_{number}") for number in range(6)] + [Customer("cus_0", "acct_1")]
PLANS = [(), ("seats",), ("seats", "export"), tuple(f"feature-{number}" for number in range(12))]


class Remembering(RuleBasedStateMachine):
    """The cache beside an ordered dictionary that is put in order by hand, least recently asked first.

    There is a feed for the key's own account, read from the beginning.
    """

    def __init__(self) -> None:
        super().__init__()
        self.max_bytes = 5000
        self.watermarks = Watermarks()
        self.watermarks.begin(None, 0.0)
        self.until = 0.0
        self.cache = Cache(self.max_bytes, self.watermarks)
        self.model: OrderedDict[Key, Snapshot] = OrderedDict()
        self.known_up_to: dict[Key, float] = {}

    @rule(moment=st.integers(1, 9))
    def advance(self, moment: int) -> None:
        self.until = max(self.until, float(moment))
        self.watermarks.advance(None, float(moment))

    @rule(customer=st.sampled_from(CUSTOMERS))
    def ask(self, customer: Customer) -> None:
        assert self.cache.get(customer) == self.model.get(customer)
        if customer in self.model:
            self.model.move_to_end(customer)

    @rule(customer=st.sampled_from(CUSTOMERS), moment=st.integers(1, 9))
    def mark(self, customer: Customer, moment: int) -> None:
        known, evictions = self.model.get(customer), self.cache.evictions
        assert self.cache.mark(customer, float(moment)) is (known is not None)
        if known is not None:
            gone = self._place(replace(known, dirty=Dirty(float(moment), self._verified_at(known))))
            assert self.cache.evictions - evictions == gone

    @rule(customer=st.sampled_from(CUSTOMERS), moment=st.integers(1, 9), keys=st.sampled_from(PLANS))
    def put(self, customer: Customer, moment: int, keys: tuple[str, ...]) -> None:
        self._put(held(customer, float(moment), *keys))

    @rule(customer=st.sampled_from(CUSTOMERS), moment=st.integers(1, 9))
    def put_unknown(self, customer: Customer, moment: int) -> None:
        self._put(unknown(customer, float(moment)))

    @rule(customer=st.sampled_from(CUSTOMERS), moment=st.integers(1, 9))
    def put_oversize(self, customer: Customer, moment: int) -> None:
        self._put(held(customer, float(moment), *(f"feature-{number:050}" for number in range(60))))

    def _put(self, snapshot: Snapshot) -> None:
        customer, evictions = snapshot.customer, self.cache.evictions
        known, wanted = self.model.get(customer), snapshot
        if known is not None and known.dirty is not None and snapshot.taken_at < known.dirty.heard_at:
            vouched_for = snapshot.taken_at if snapshot.unknown else known.dirty.verified_at
            wanted = replace(snapshot, dirty=Dirty(known.dirty.heard_at, max(snapshot.taken_at, vouched_for)))
        accepted = known is None or (
            known.taken_at <= wanted.taken_at and self._verified_at(known) <= self._verified_at(wanted)
        )
        assert self.cache.put(snapshot) is accepted
        gone = 0
        if accepted:
            gone = self._place(wanted)
        else:
            self.model.move_to_end(customer)  # it was looked up
        assert self.cache.evictions - evictions == gone

    def _place(self, snapshot: Snapshot) -> int:
        """Put ``snapshot`` in the place of the older one; return how many had to go for it."""
        self.model[snapshot.customer] = snapshot
        self.model.move_to_end(snapshot.customer)
        gone = 0
        others = len(self.model) - 1
        if self._is_full() and weight_of(snapshot) + self._container() - NODE * others > self.max_bytes:
            del self.model[snapshot.customer]
            gone = 1
        while self._is_full():
            self.model.popitem(last=False)
            gone += 1
        if not self.model:
            self.model.clear()
        return gone

    def _container(self) -> int:
        """Return what the model's own dictionary takes: it has seen the same coming and going."""
        return getsizeof(self.model) - EMPTY_CONTAINER

    def _is_full(self) -> bool:
        container = max(self._container(), container_of(len(self.model)))
        return weight_of(*self.model.values()) + container > self.max_bytes

    def _verified_at(self, snapshot: Snapshot) -> float:
        if snapshot.dirty is not None:
            return snapshot.dirty.verified_at
        is_read = snapshot.customer.account is None and snapshot.unknown is None
        return max(snapshot.taken_at, self.until) if is_read else snapshot.taken_at

    def peek(self) -> dict[Key, Snapshot]:
        """Look into the cache without counting as somebody who asks."""
        return dict(self.cache._kept)

    @invariant()
    def remembers_what_the_model_does(self) -> None:
        """The same customers and snapshots; that they are forgotten in the same order shows as time goes on."""
        assert len(self.cache) == len(self.model)
        assert self.peek() == self.model

    @invariant()
    def nothing_goes_back_in_time(self) -> None:
        """While a customer is remembered, what is known of it only gets later."""
        known = {customer: self.watermarks.verified_at(snapshot) for customer, snapshot in self.peek().items()}
        assert all(self.known_up_to.get(customer, moment) <= moment for customer, moment in known.items())
        self.known_up_to = known

    @invariant()
    def bytes_are_what_weighing_anew_gives(self) -> None:
        """The running count is the sum from scratch, and under the bound."""
        assert self.cache.bytes == weight_of(*self.model.values()) + self._container()
        assert self.cache.bytes <= self.max_bytes

    @invariant()
    def equal_plans_are_shared(self) -> None:
        """There is one object for each list of features and for each feature, and none that nobody holds."""
        plans: dict[tuple[Feature, ...], Plan] = {}
        features: dict[Feature, Feature] = {}
        for snapshot in self.peek().values():
            assert plans.setdefault(snapshot.plan.features, snapshot.plan) is snapshot.plan
            for feature in snapshot.plan.features:
                assert features.setdefault(feature, feature) is feature
        assert len(self.cache._plans) == len(plans)
        assert len(self.cache._plans._features) == len(features)


TestRemembering = Remembering.TestCase
TestRemembering.settings = settings(stateful_step_count=30)


def realistic(number: int, entitlements: int, plans: int) -> Snapshot:
    """Return a snapshot made of fresh strings, of the lengths that Stripe's have."""
    plan = number % plans
    features = tuple(
        Feature(f"feat_test_61{plan:05}{n:03}".ljust(41, "x"), f"feature-{plan:05}-{n}") for n in range(entitlements)
    )
    ids = [f"ent_test_61{number:07}{n:03}".ljust(41, "x") for n in range(entitlements)]
    return Snapshot(Customer(f"cus_{number:014}"), 1.79e9 + number, Plan.of(features), packed(ids))


@pytest.mark.timeout(120)  # every allocation is traced
@pytest.mark.parametrize(
    ("customers", "plans", "dirty"),
    [
        pytest.param(20_000, 10, False, id="dictionaries well filled"),
        pytest.param(5_500, 10, False, id="dictionaries just grown"),
        pytest.param(2_000, 2_000, False, id="everybody with a plan of their own"),
        pytest.param(5_500, 10, True, id="everybody dirty"),
    ],
)
def test_the_count_of_bytes_is_honest(customers: int, plans: int, *, dirty: bool) -> None:
    """What we count differs by at most 10 % from what Python allocated; for what the process takes see the journey."""
    cache = Cache(1 << 30, Watermarks())
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(customers):
            snapshot = realistic(number, entitlements=5, plans=plans)
            cache.put(snapshot)
            if dirty:
                cache.mark(snapshot.customer, snapshot.taken_at + 1)
        gc.collect()
        allocated = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len(cache) == customers
    assert 0.9 <= cache.bytes / allocated <= 1.1


def test_a_customer_with_nothing_still_weighs_something() -> None:
    """Empty lists are bounded as well, or a million of them would be free."""
    assert weigh(Snapshot(ADA, 1.0)) > 200
    assert weigh_plan(NOTHING) > 0


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_no_text_takes_more_than_is_counted(text: str) -> None:
    """Whatever its characters; before its UTF-8 was asked for, which it then keeps, and after."""
    counted = of_text(text)
    assert getsizeof(text) <= counted
    orjson.dumps(text)
    assert getsizeof(text) <= counted == of_text(text)


def test_all_that_is_remembered_can_be_told() -> None:
    """Each list as it is when its turn comes, the forgotten left out; and it counts as no use."""
    cache = Cache(1 << 20, Watermarks())
    customers = [Customer(f"cus_{number}") for number in range(3)]
    for customer in customers:
        cache.put(Snapshot(customer, 10.0))
    telling = cache.snapshots()
    assert next(telling).customer == customers[0]
    cache.put(Snapshot(customers[1], 20.0))
    del cache._kept[customers[2]]
    assert list(telling) == [Snapshot(customers[1], 20.0)]
    assert next(iter(cache._kept)) == customers[0], "it is still the one least recently asked about"
