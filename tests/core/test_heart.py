"""The parts of the heart, put together."""

import asyncio
import dataclasses

from sidecar.core.changes import Kind
from sidecar.core.checker import Policies
from sidecar.core.heart import Heart, Ports, Rules
from sidecar.kit.tasks import Tasks
from sidecar.model import Customer, Policy
from sidecar.stores.memory import Memory
from tests.core.fetching import ADA, FRESHNESS, FakeUpstream, House, held, settled, unknown
from tests.fakes import FakeClock


async def test_news_reaches_whom_the_checker_answers(house: House) -> None:
    """What news marks, schedules and has read is what is answered from; the vigil waits for the same flights."""
    house.remember(10, "seats")
    house.upstream.gate.clear()
    house.hear()
    async with asyncio.TaskGroup() as group:
        asked, looked = group.create_task(house.checker.find(ADA)), group.create_task(house.heart.vigil.look(ADA))
        await settled()
        house.upstream.gate.set()
    assert looked.done()
    assert asked.result().snapshot.plan.lookup_keys == {"pro"}
    assert house.upstream.asked == [ADA]


async def test_one_watermark_is_everybodys(house: House) -> None:
    """It is in the age of an answer, in what the cache accepts, and in what the audit compares."""
    house.remember(100, "pro")
    house.vouch(lag=7)
    finding = house.checker.glance(ADA)
    assert finding is not None
    assert finding.age == 7
    assert not house.cache.put(unknown(ADA, house.clock.now - 50))
    await house.refresher.renew(ADA)
    assert house.heart.audit.checked == 1


async def test_what_lands_is_told(house: House) -> None:
    """A change of a list is in the ring of changes, and compared by the audit."""
    house.remember(100, "seats")
    house.vouch(lag=7)
    await house.refresher.renew(ADA)
    changes = house.heart.changes.since(0).changes
    assert [(change.kind, change.lookup_key) for change in changes] == [(Kind.REVOKED, "seats"), (Kind.GRANTED, "pro")]
    house.vouch()
    assert house.heart.audit.differences == 1


async def test_the_budget_and_the_rules_are_the_ones_given(clock: FakeClock) -> None:
    """What is to spare, how much is remembered, how long it is trusted, what is answered without it, who we are."""
    upstream, tasks = FakeUpstream(clock, "pro"), Tasks()
    policies = Policies({"*": Policy.ALLOW})
    rules = Rules(FRESHNESS, policies, cache_bytes=4321, seed=0xBEEF)
    heart = Heart.of(Ports(upstream.fetch, lambda: False, Memory()), rules, tasks=tasks, clock=clock)
    heart.refresher.nudge(ADA)
    assert heart.refresher.deferred == 1
    assert heart.cache.max_bytes == 4321
    assert (heart.checker.freshness, heart.checker.policies) == (FRESHNESS, policies)
    assert heart.changes.last_id() == "0000beef-0"
    await tasks.close()


async def test_processes_do_not_read_the_same_customers_together(clock: FakeClock) -> None:
    """The seed is in the moments at which lists are read ahead."""
    crowd = [Customer(f"cus_{number}") for number in range(100)]

    async def ahead(seed: int) -> set[Customer]:
        """Return those who are read when all are asked about, all being as old."""
        upstream, tasks = FakeUpstream(clock, "pro"), Tasks()
        rules = Rules(FRESHNESS, Policies({}), cache_bytes=1 << 20, seed=seed)
        heart = Heart.of(Ports(upstream.fetch, lambda: True, Memory()), rules, tasks=tasks, clock=clock)
        for customer in crowd:
            heart.cache.put(held(customer, clock.now - 0.85 * FRESHNESS.fresh_for, "pro"))
            assert heart.checker.glance(customer) is not None
        await settled()
        return set(upstream.asked)

    one, other = await ahead(1), await ahead(2)
    assert one == await ahead(1)
    assert one - other
    assert other - one


async def test_each_part_is_there_once(house: House) -> None:
    """No part has one of its own of what another has."""
    parts = {field.name: getattr(house.heart, field.name) for field in dataclasses.fields(house.heart)}
    for part in parts.values():
        for name, value in vars(part).items():
            same = [known for known in parts.values() if type(known) is type(value)]
            assert not same or value is same[0], f"{type(part).__name__}.{name}"
