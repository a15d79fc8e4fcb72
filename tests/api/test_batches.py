"""Many checks in one request. What single checks are told is in ``test_checks``; here, that a batch is told the same."""

import json
from itertools import cycle, islice
from typing import Any
from urllib.parse import quote

import pytest
from yarl import URL

from sidecar.api.batches import MOST_KEYS, Batches, Keys
from sidecar.api.shortcuts import NOTHING
from sidecar.demo import FakeStripe, Fault
from sidecar.errors import Malformed
from sidecar.model import Customer
from tests.core.fetching import House
from tests.fakes import FakeClock, Running, running

pytestmark = pytest.mark.usefixtures("each_way")

KEYS = ["a", "b", 'quo"te', "ключ", "back\\slash", "</script>", "a%2Fb", "c"]
HELD = KEYS[:-1]


async def all_kinds(sidecar: Running, stripe: FakeStripe) -> list[str]:
    """Return customers of every kind: fresh, due, stale, dirty, expired, unknown, never asked about. Stripe is gone."""
    for name in ("expired", "stale", "due", "dirty", "fresh"):
        for key in HELD:
            stripe.grant(f"cus_{name}", key)
    await sidecar.check("cus_expired", "a")
    sidecar.clock.advance(100_000)
    await sidecar.check("cus_stale", "a")
    sidecar.clock.advance(200)
    await sidecar.check("cus_due", "a")
    sidecar.clock.advance(290)
    for name in ("dirty", "fresh", "unknown"):
        await sidecar.check(f"cus_{name}", "a")
    sidecar.clock.advance(1)
    stripe.break_with(Fault.ERROR)
    sidecar.sidecar.heart.cache.mark(Customer("cus_dirty"), sidecar.clock())
    return ["cus_fresh", "cus_due", "cus_stale", "cus_dirty", "cus_expired", "cus_unknown", "cus_absent"]


def counted(page: str) -> dict[str, float]:
    """Return the samples of a page of metrics that count answers to checks."""
    lines = [line for line in page.splitlines() if line.startswith("entitlement_sidecar_")]
    samples = {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}
    wanted = ("checks_total", "answer_age_seconds_count", "policy_answers_total")
    return {name: value for name, value in samples.items() if any(word in name for word in wanted) and value}


def aside(members: dict[str, Any]) -> dict[str, Any]:
    """Return a decision without its age, which goes on, and without why Stripe was not asked, which changes."""
    return {name: value for name, value in members.items() if name not in ("age", "code")}


async def test_a_batch_is_told_what_each_check_is_told(upstream: str, stripe: FakeStripe) -> None:
    """Whatever is known of whom, in any order, one or a hundred times; and it is counted the same."""
    async with running(upstream, deadline=0.3, dirty_wait=0) as sidecar:
        customers = await all_kinds(sidecar, stripe)
        pairs = zip(cycle(customers), cycle(KEYS), strict=False)  # seven of these and eight of those: every pair
        checks = [{"customer": customer, "lookup_key": key} for customer, key in islice(pairs, 112)]
        before = counted(await sidecar.metrics())
        status, body = await sidecar.ask("POST", "/v1/checks", json={"checks": checks})
        between = counted(await sidecar.metrics())
        assert status == 200
        for check, told in zip(checks, body["results"], strict=True):
            path = f"/v1/customers/{check['customer']}/entitlements/{quote(check['lookup_key'], safe='')}"
            async with sidecar.session.get(URL(sidecar.url + path, encoded=True)) as response:
                assert aside(told) == aside(await response.json()), check
        after = counted(await sidecar.metrics())
        assert {name: value - before.get(name, 0) for name, value in between.items()} == {
            name: value - between.get(name, 0) for name, value in after.items()
        }


async def test_one_as_a_batch_is_one_by_itself(upstream: str, stripe: FakeStripe) -> None:
    """Member by member, in the same order."""
    async with running(upstream) as sidecar:
        for key in HELD:
            stripe.grant("cus_1", key)
        await sidecar.check("cus_1", "a")
        for key in ("a", "c"):
            alone = await sidecar.check("cus_1", key)
            checks = [{"customer": "cus_1", "lookup_key": key}]
            _, body = await sidecar.ask("POST", "/v1/checks", json={"checks": checks})
            (told,) = body["results"]
            assert list(told) == list(alone)
            assert aside(told) == aside(alone)


@pytest.mark.parametrize(
    ("check", "code"),
    [
        ({"customer": ["cus_1"], "lookup_key": "a"}, "malformed_customer"),
        ({"customer": "cus_1", "lookup_key": ["a"]}, "malformed_lookup_key"),
        ({"customer": "cus_1", "lookup_key": 0}, "malformed_lookup_key"),
        ({"customer": "cus_1", "lookup_key": False}, "malformed_lookup_key"),
        ({"customer": "cus_1", "lookup_key": ""}, "malformed_lookup_key"),
        ({"customer": "cus_1", "lookup_key": "a\n"}, "malformed_lookup_key"),
        ({"customer": "cus_1", "lookup_key": "k" * 201}, "malformed_lookup_key"),
        ({"customer": "cus_1", "lookup_key": "a", "account": 5}, "malformed_account"),
        ({"customer": "cus_1", "lookup_key": "a", "more": 5}, "malformed_checks"),
        ({"customer": None, "lookup_key": "a"}, "malformed_customer"),
        (["customer", "lookup_key"], "malformed_checks"),
        ("customer", "malformed_checks"),
    ],
    ids=range(12),
)
async def test_a_bad_check_among_sure_ones_is_named(
    sidecar: Running, stripe: FakeStripe, check: object, code: str
) -> None:
    """By its place; nothing is answered then, and nothing is counted."""
    stripe.grant("cus_1", "a")
    await sidecar.check("cus_1", "a")
    before = counted(await sidecar.metrics())
    good = {"customer": "cus_1", "lookup_key": "a"}
    status, body = await sidecar.ask("POST", "/v1/checks", json={"checks": [good, check, good, check]})
    assert (status, body["code"]) == (400, code)
    assert body["part"].startswith("checks[1]")
    assert counted(await sidecar.metrics()) == before


async def test_sure_answers_grow_older_with_those_that_wait(upstream: str, stripe: FakeStripe) -> None:
    """One list in memory all along, one that is waited for: both tell the age of when they were sent."""
    async with running(upstream, deadline=0.5) as sidecar:
        stripe.grant("cus_1", "a")
        await sidecar.check("cus_1", "a")
        stripe.break_with(Fault.HANG)
        checks = [{"customer": name, "lookup_key": "a"} for name in ("cus_1", "cus_2", "cus_1")]
        _, body = await sidecar.ask("POST", "/v1/checks", json={"checks": checks})
        assert [told["source"] for told in body["results"]] == ["memory", "policy", "memory"]
        assert all(told["age"] >= 0.5 for told in body["results"][::2])
        stripe.break_with(None)


def test_keys_are_remembered_up_to_a_bound() -> None:
    """Who asks about ever new keys costs no memory; what can be no key is not remembered at all."""
    keys = Keys('"entitled":true')
    for number in range(MOST_KEYS + 10):
        assert json.loads(f"{{{keys[f'key {number}']}}}") == {"lookup_key": f"key {number}", "entitled": True}
    assert len(keys) == 10
    with pytest.raises(Malformed):
        _ = keys["a\n"]
    assert len(keys) == 10


async def test_a_defect_of_ours_is_no_refusal(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is heard of; it does not make every batch slow for ever."""
    house = House(clock)
    house.remember(1.0, "a")

    def broken(*_: object) -> None:
        raise KeyError("a defect of ours")

    monkeypatch.setattr(house.checker, "sure", broken)
    with pytest.raises(KeyError, match="a defect of ours"):
        _ = Batches(house.checker).hit(b'{"checks":[{"customer":"cus_ada","lookup_key":"a"}]}', NOTHING)
