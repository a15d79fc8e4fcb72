"""What is remembered."""

import gc
import tracemalloc
from collections import OrderedDict

import cachetools
import orjson
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sidecar.core.cache import Cache, weigh, weigh_plan
from sidecar.model import NOTHING, Customer, Feature, Plan, Snapshot, Unknown
from tests.core.fetching import ADA, BOB, held, unknown

ROOM = 1 << 20


def kept(cache: Cache, *customers: Customer) -> list[Customer]:
    """Return those of ``customers`` that are remembered."""
    return [customer for customer in customers if cache.get(customer) is not None]


def bound_for(*snapshots: Snapshot) -> int:
    """Return the bytes that these snapshots take together."""
    plans = {snapshot.plan.features: snapshot.plan for snapshot in snapshots}
    return sum(map(weigh, snapshots)) + sum(map(weigh_plan, plans.values()))


class TestOneCustomer:
    def test_nothing_is_remembered_of_a_stranger(self) -> None:
        """Who was never put is not there, and asking changes nothing."""
        cache = Cache(ROOM)
        assert cache.get(ADA) is None
        assert (len(cache), cache.bytes, cache.evictions) == (0, 0, 0)

    def test_what_is_put_is_remembered(self) -> None:
        """A snapshot comes back as it went in."""
        cache = Cache(ROOM)
        snapshot = held(ADA, 1.0, "seats", "export")
        assert cache.put(snapshot)
        assert cache.get(ADA) == snapshot
        assert len(cache) == 1

    def test_the_same_id_in_another_account_is_another_customer(self) -> None:
        """A customer id means something only within its account."""
        cache = Cache(ROOM)
        cache.put(held(Customer("cus_1"), 1.0, "own"))
        cache.put(held(Customer("cus_1", "acct_1"), 1.0, "connected"))
        found = cache.get(Customer("cus_1"))
        assert found is not None
        assert found.plan.lookup_keys == {"own"}

    def test_an_older_snapshot_is_refused(self) -> None:
        """The cache never goes back in time, whatever order answers arrive in."""
        cache = Cache(ROOM)
        newer = held(ADA, 2.0, "seats")
        assert cache.put(newer)
        before = cache.bytes
        assert not cache.put(held(ADA, 1.0, "export"))
        assert cache.get(ADA) == newer
        assert cache.bytes == before

    def test_a_snapshot_of_the_same_moment_is_accepted(self) -> None:
        """Of two equally young lists the one that arrived last counts."""
        cache = Cache(ROOM)
        cache.put(held(ADA, 1.0, "seats"))
        assert cache.put(held(ADA, 1.0, "export"))
        found = cache.get(ADA)
        assert found is not None
        assert found.plan.lookup_keys == {"export"}

    def test_a_newer_snapshot_replaces(self) -> None:
        """Nothing of the older one is kept or counted."""
        cache = Cache(ROOM)
        cache.put(held(ADA, 1.0, "seats", "export", "sso"))
        cache.put(held(ADA, 2.0, "seats"))
        assert cache.bytes == bound_for(held(ADA, 2.0, "seats"))
        assert (len(cache), cache.evictions) == (1, 0)

    def test_an_unknown_customer_is_remembered_as_such(self) -> None:
        """Stripe's refusal is part of what is remembered, and of its weight."""
        cache = Cache(ROOM)
        cache.put(unknown(ADA, 1.0))
        found = cache.get(ADA)
        assert found is not None
        assert isinstance(found.unknown, Unknown)
        assert cache.bytes > bound_for(Snapshot(ADA, 1.0))


class TestPlans:
    def test_equal_plans_are_one_object(self) -> None:
        """A thousand customers of one plan share one list of features and one set of lookup keys."""
        cache = Cache(ROOM)
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
        cache = Cache(ROOM)
        cache.put(held(ADA, 1.0, "seats"))
        before = cache.bytes
        cache.put(held(BOB, 1.0, "seats"))
        assert cache.bytes - before == weigh(held(BOB, 1.0, "seats"))

    def test_another_order_is_another_plan(self) -> None:
        """Stripe's order is kept, since ids are matched to features by it."""
        cache = Cache(ROOM)
        cache.put(held(ADA, 1.0, "seats", "export"))
        cache.put(held(BOB, 1.0, "export", "seats"))
        ada, bob = cache.get(ADA), cache.get(BOB)
        assert ada is not None
        assert bob is not None
        assert ada.plan is not bob.plan

    def test_a_plan_goes_with_its_last_holder(self) -> None:
        """While one customer has it, it stays; after that nothing of it is counted."""
        cache = Cache(ROOM)
        for customer in (ADA, BOB):
            cache.put(held(customer, 1.0, "seats"))
        cache.put(Snapshot(ADA, 2.0))
        assert cache.bytes == bound_for(Snapshot(ADA, 2.0), held(BOB, 1.0, "seats"))
        cache.put(Snapshot(BOB, 2.0))
        assert cache.bytes == bound_for(Snapshot(ADA, 2.0), Snapshot(BOB, 2.0))

    def test_a_lookup_key_that_grows_does_not_wear_the_count_away(self) -> None:
        """Asking a string for its UTF-8 makes it larger for ``getsizeof``; what is taken away is what was added."""
        cache = Cache(ROOM)
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
        cache = Cache(bound_for(*snapshots[:2]))
        cache.put(snapshots[0])
        cache.put(snapshots[1])
        cache.get(a)
        cache.put(snapshots[2])
        assert kept(cache, a, b, c) == [a, c]
        assert cache.evictions == 1

    def test_the_room_that_is_there_is_used(self) -> None:
        """Exactly as many bytes as the bound may be in use."""
        snapshots = [held(Customer(f"cus_{number}"), 1.0, "seats", str(number)) for number in range(5)]
        cache = Cache(bound_for(*snapshots))
        for snapshot in snapshots:
            cache.put(snapshot)
        assert (len(cache), cache.evictions) == (5, 0)
        assert cache.bytes == cache.max_bytes

    def test_a_large_one_displaces_as_many_as_it_must(self) -> None:
        """Eviction goes on until there is room, and takes their plans along."""
        large = held(ADA, 1.0, *(f"feature-{number}" for number in range(50)))
        cache = Cache(bound_for(large))
        small = [held(Customer(f"cus_{number}"), 1.0, f"own-{number}") for number in range(4)]
        for snapshot in small:
            cache.put(snapshot)
        cache.put(large)
        assert kept(cache, ADA, *(snapshot.customer for snapshot in small)) == [ADA]
        assert (cache.evictions, cache.bytes) == (4, cache.max_bytes)

    def test_what_exceeds_the_whole_bound_is_not_kept(self) -> None:
        """Neither is the older one it replaces, for that would be a step back; nobody else makes room for it."""
        large = held(ADA, 2.0, *(f"feature-{number}" for number in range(50)))
        cache = Cache(bound_for(large) - 1)
        cache.put(held(BOB, 1.0, "seats"))
        cache.put(held(ADA, 1.0, "seats"))
        assert cache.put(large)
        assert kept(cache, ADA, BOB) == [BOB]
        assert cache.evictions == 1
        assert cache.bytes == bound_for(held(BOB, 1.0, "seats"))

    def test_a_plan_that_exceeds_the_bound_alone_is_not_kept(self) -> None:
        """A plan counts for its first holder."""
        snapshot = held(ADA, 1.0, *(f"feature-{number}" for number in range(50)))
        cache = Cache(weigh_plan(snapshot.plan))
        assert cache.put(snapshot)
        assert (len(cache), cache.bytes, cache.evictions) == (0, 0, 1)


CUSTOMERS = [Customer(f"cus_{number}") for number in range(6)] + [Customer("cus_0", "acct_1")]
PLANS = [(), ("seats",), ("seats", "export"), tuple(f"feature-{number}" for number in range(12))]


class Remembering(RuleBasedStateMachine):
    """The cache beside an ordered dictionary that is put in order by hand, least recently asked first."""

    def __init__(self) -> None:
        super().__init__()
        self.max_bytes = 4500
        self.cache = Cache(self.max_bytes)
        self.model: OrderedDict[Customer, Snapshot] = OrderedDict()

    @rule(customer=st.sampled_from(CUSTOMERS))
    def ask(self, customer: Customer) -> None:
        assert self.cache.get(customer) == self.model.get(customer)
        if customer in self.model:
            self.model.move_to_end(customer)

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
        known = self.model.get(customer)
        accepted = known is None or known.taken_at <= snapshot.taken_at
        assert self.cache.put(snapshot) is accepted
        gone = 0
        if not accepted:
            self.model.move_to_end(customer)  # it was looked up
        else:
            self.model.pop(customer, None)
            if bound_for(snapshot) > self.max_bytes:
                gone = 1
            else:
                while bound_for(snapshot, *self.model.values()) > self.max_bytes:
                    self.model.popitem(last=False)
                    gone += 1
                self.model[customer] = snapshot
        assert self.cache.evictions - evictions == gone

    def peek(self) -> dict[Customer, Snapshot]:
        """Look into the cache without counting as somebody who asks."""
        return {customer: cachetools.Cache.__getitem__(self.cache._kept, customer) for customer in self.cache._kept}

    @invariant()
    def remembers_what_the_model_does(self) -> None:
        """The same customers and snapshots; that they are forgotten in the same order shows as time goes on."""
        assert len(self.cache) == len(self.model)
        assert self.peek() == self.model

    @invariant()
    def bytes_are_what_weighing_anew_gives(self) -> None:
        """The running count is the sum from scratch, and under the bound."""
        assert self.cache.bytes == bound_for(*self.model.values())
        assert self.cache.bytes <= self.max_bytes

    @invariant()
    def equal_plans_are_shared(self) -> None:
        """There is one object for each list of features, and none that nobody holds."""
        plans: dict[tuple[Feature, ...], Plan] = {}
        for snapshot in self.peek().values():
            assert plans.setdefault(snapshot.plan.features, snapshot.plan) is snapshot.plan
        assert len(self.cache._plans) == len(plans)


TestRemembering = Remembering.TestCase
TestRemembering.settings = settings(stateful_step_count=30)


def realistic(number: int, entitlements: int, plans: int) -> Snapshot:
    """Return a snapshot made of fresh strings, of the lengths that Stripe's have."""
    plan = number % plans
    features = tuple(
        Feature(f"feat_test_61{plan:05}{n:03}".ljust(41, "x"), f"feature-{plan:05}-{n}") for n in range(entitlements)
    )
    ids = tuple(f"ent_test_61{number:07}{n:03}".ljust(41, "x") for n in range(entitlements))
    return Snapshot(Customer(f"cus_{number:014}"), 1.79e9 + number, Plan.of(features), ids)


@pytest.mark.parametrize(
    ("customers", "plans"),
    [
        pytest.param(20_000, 10, id="dictionaries well filled"),
        pytest.param(5_500, 10, id="dictionaries just grown"),
        pytest.param(2_000, 2_000, id="everybody with a plan of their own"),
    ],
)
def test_the_count_of_bytes_is_honest(customers: int, plans: int) -> None:
    """What we count differs by at most 15 % from what Python allocated."""
    cache = Cache(1 << 30)
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(customers):
            cache.put(realistic(number, entitlements=5, plans=plans))
        gc.collect()
        allocated = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len(cache) == customers
    assert 0.85 <= cache.bytes / allocated <= 1.15


def test_a_customer_with_nothing_still_weighs_something() -> None:
    """Empty lists are bounded as well, or a million of them would be free."""
    assert weigh(Snapshot(ADA, 1.0)) > 400
    assert weigh_plan(NOTHING) > 0
