"""The moment after a checkout: a check that waits until the customer is entitled."""

import asyncio
from typing import Any

import pytest

from sidecar.demo import FakeStripe, Fault
from tests.api.test_checks import give
from tests.fakes import SECRET, Running, running

PATIENT: dict[str, Any] = {"dirty_wait": 5, "deadline": 15}


def asking(sidecar: Running, query: str, customer: str = "cus_1") -> asyncio.Task[dict[str, Any]]:
    return asyncio.get_running_loop().create_task(sidecar.check(customer, "a", query))


async def arrived(stripe: FakeStripe, count: int) -> None:
    while stripe.count("list") < count:
        await asyncio.sleep(0.001)


async def test_it_ends_as_soon_as_the_grant_is_visible(upstream: str, stripe: FakeStripe) -> None:
    """The next look at Stripe finds it, whatever is left of the time."""
    stripe.add_customer("cus_1")
    async with running(upstream, **PATIENT) as sidecar:
        waiting = asking(sidecar, "?wait=15s")
        await arrived(stripe, 1)
        stripe.grant("cus_1", "a")
        looks = stripe.count("list")
        answer = await waiting
        assert (answer["entitled"], answer["reason"], answer["stale"]) == (True, "entitled", False)
        assert stripe.count("list") <= looks + 2, "the one under way may have missed it, the next one did not"


async def test_who_is_entitled_waits_for_nothing(sidecar: Running, stripe: FakeStripe) -> None:
    """Neither for the first answer nor for one from memory."""
    stripe.grant("cus_1", "a")
    for source in ("upstream", "memory"):
        answer = await sidecar.check("cus_1", "a", "?wait=30s")
        assert (answer["entitled"], answer["source"]) == (True, source)
    assert stripe.count() == 1


@pytest.mark.parametrize("wait", ["0", "0s", "0ms", "0.0s"])
async def test_no_time_is_a_plain_check(sidecar: Running, stripe: FakeStripe, wait: str) -> None:
    """One look, one answer."""
    stripe.add_customer("cus_1")
    answer = await sidecar.check("cus_1", "a", f"?wait={wait}")
    assert (answer["entitled"], answer["reason"]) == (False, "not_entitled")
    assert stripe.count() == 1


async def test_two_hundred_who_wait_cost_a_request_a_second(upstream: str, stripe: FakeStripe) -> None:
    """They share each look; all of them are told in the end, and what is true."""
    asyncio.get_running_loop().set_debug(False)  # it makes each of many tasks slow
    stripe.add_customer("cus_1")
    async with running(upstream, **PATIENT) as sidecar:
        began = sidecar.clock()
        answers = await asyncio.gather(*(sidecar.check("cus_1", "a", "?wait=1500ms") for _ in range(200)))
        took = sidecar.clock() - began
        assert took >= 1.5
        assert {(answer["entitled"], answer["reason"], answer["stale"]) for answer in answers} == {
            (False, "not_entitled", False)
        }
        assert 2 <= stripe.count("list") <= 1 + took
        assert stripe.count() == stripe.count("list")


async def test_who_waits_for_different_things_shares_the_looks(upstream: str, stripe: FakeStripe) -> None:
    """Of one customer there is one list, whatever is looked for in it."""
    stripe.add_customer("cus_1")
    async with running(upstream, **PATIENT) as sidecar:
        began = sidecar.clock()
        one, other = asking(sidecar, "?wait=10s"), sidecar.check("cus_1", "b", "?wait=1200ms")
        assert (await other)["entitled"] is False
        assert not one.done()
        stripe.grant("cus_1", "a")
        assert (await one)["entitled"] is True
        assert stripe.count("list") <= 1 + (sidecar.clock() - began)


async def test_it_ends_in_time_with_a_true_answer(upstream: str, stripe: FakeStripe) -> None:
    """What the same question without waiting would have been told."""
    stripe.add_customer("cus_1")
    async with running(upstream, **PATIENT) as sidecar:
        for customer, reason in (("cus_1", "not_entitled"), ("cus_nobody", "unknown_customer")):
            began = sidecar.clock()
            answer = await sidecar.check(customer, "a", "?wait=200ms")
            assert sidecar.clock() - began >= 0.2
            assert (answer["entitled"], answer["reason"], answer["stale"]) == (False, reason, False)
            assert answer["age"] >= 0.1


async def test_a_customer_who_is_made_meanwhile_is_seen(upstream: str, stripe: FakeStripe) -> None:
    """A checkout often makes the customer only then."""
    async with running(upstream, **PATIENT) as sidecar:
        waiting = asking(sidecar, "?wait=15s")
        await arrived(stripe, 1)
        stripe.grant("cus_1", "a")
        assert (await waiting)["entitled"] is True


async def test_news_ends_it_at_once(upstream: str, stripe: FakeStripe) -> None:
    """A long list is looked at more seldom, as each look costs a request a page; a webhook does not wait for that."""
    give(stripe, "cus_1", 1001)
    async with running(upstream, webhook_secret=SECRET, **PATIENT) as sidecar:
        stripe.add_endpoint(f"{sidecar.webhook_url}/webhooks/stripe", SECRET)
        waiting = asking(sidecar, "?wait=18s")
        await arrived(stripe, 11)
        while sidecar.sidecar.heart.refresher.in_the_air():
            await asyncio.sleep(0.001)
        assert not waiting.done()
        stripe.grant("cus_1", "a")
        answer = await waiting
        assert (answer["entitled"], answer["stale"]) == (True, False)
        assert stripe.count("list") == 22


async def test_news_of_something_else_does_not_end_it(upstream: str, stripe: FakeStripe) -> None:
    """The answer is still no, so the rest of the time is waited for."""
    stripe.add_customer("cus_1")
    async with running(upstream, webhook_secret=SECRET, **PATIENT) as sidecar:
        stripe.add_endpoint(f"{sidecar.webhook_url}/webhooks/stripe", SECRET)
        began = sidecar.clock()
        waiting = asking(sidecar, "?wait=500ms")
        await arrived(stripe, 1)
        stripe.grant("cus_1", "b")
        await stripe.delivered()
        answer = await waiting
        assert (answer["entitled"], answer["reason"]) == (False, "not_entitled")
        assert sidecar.clock() - began >= 0.5
        assert (await sidecar.check("cus_1", "b"))["entitled"] is True


async def test_it_spends_only_what_is_left_over(upstream: str, stripe: FakeStripe) -> None:
    """Without budget nobody looks; those who wait are told what is known."""
    stripe.add_customer("cus_1")
    async with running(upstream, rate=0.001, burst=1, **PATIENT) as sidecar:
        answer = await sidecar.check("cus_1", "a", "?wait=1200ms")
        assert (answer["entitled"], answer["reason"]) == (False, "not_entitled")
        assert stripe.count() == 1
        assert sidecar.sidecar.heart.refresher.deferred >= 1


async def test_while_stripe_is_away_the_policy_answers_in_the_end(upstream: str, stripe: FakeStripe) -> None:
    """Not knowing is waited out as well: it may end."""
    stripe.grant("cus_1", "a")
    stripe.break_with(Fault.ENDLESS)  # fails without a retry
    async with running(upstream, **PATIENT) as sidecar:
        answer = await sidecar.check("cus_1", "a", "?wait=100ms&default=deny")
        assert (answer["entitled"], answer["reason"], answer["source"]) == (False, "unavailable", "policy")
        waiting = asking(sidecar, "?wait=15s")
        await arrived(stripe, 2)
        assert not waiting.done()
        stripe.break_with(None)
        assert (await waiting)["entitled"] is True


async def test_one_who_leaves_does_not_disturb_the_others(upstream: str, stripe: FakeStripe) -> None:
    """The look goes on for whoever still waits."""
    stripe.add_customer("cus_1")
    async with running(upstream, **PATIENT) as sidecar:
        leaving, staying = asking(sidecar, "?wait=15s"), asking(sidecar, "?wait=15s")
        await arrived(stripe, 1)
        leaving.cancel()
        stripe.grant("cus_1", "a")
        assert (await staying)["entitled"] is True
        assert leaving.cancelled()


async def test_a_connected_accounts_customer_is_waited_for(upstream: str, stripe: FakeStripe) -> None:
    """And not somebody else of the same id."""
    stripe.grant("cus_1", "a")
    stripe.add_customer("cus_1", account="acct_1")
    async with running(upstream, **PATIENT) as sidecar:
        answer = await sidecar.check("cus_1", "a", "?wait=100ms", Stripe_Account="acct_1")
        assert answer["reason"] == "not_entitled"


@pytest.mark.parametrize(
    "wait",
    [
        "31s",
        "30001ms",
        "30.1",
        "1m",
        "1d",
        "x",
        "-1",
        "-1s",
        "",
        "1e1",
        "inf",
        "nan",
        "5 seconds",
        "%00",
        "%FF",
        "1s,2s",
    ],
)
async def test_what_is_no_time_to_wait_is_refused(sidecar: Running, stripe: FakeStripe, wait: str) -> None:
    """Malformed or longer than anybody should wait; nothing is asked of Stripe."""
    status, body = await sidecar.get(f"/v1/customers/cus_1/entitlements/a?wait={wait}")
    expected = "malformed_query" if wait == "%FF" else "malformed_wait"
    assert (status, body["status"], body["code"]) == (400, 400, expected)
    assert body["detail"]
    assert stripe.count() == 0


async def test_two_times_to_wait_are_refused(sidecar: Running, stripe: FakeStripe) -> None:
    """Which of them was meant cannot be told."""
    status, body = await sidecar.get("/v1/customers/cus_1/entitlements/a?wait=1s&wait=1s")
    assert (status, body["code"]) == (400, "malformed_wait")
    assert stripe.count() == 0


@pytest.mark.parametrize("wait", ["30s", "30000ms", "30", "0.5m", "5+s", "1s"])
async def test_what_is_a_time_to_wait_is_taken(sidecar: Running, stripe: FakeStripe, wait: str) -> None:
    """Up to half a minute, as durations are written elsewhere."""
    stripe.grant("cus_1", "a")
    status, body = await sidecar.get(f"/v1/customers/cus_1/entitlements/a?wait={wait}")
    assert (status, body["entitled"]) == (200, True)


@pytest.mark.parametrize("path", ["/v1/customers/cus_1/entitlements?wait=1s", "/v1/customers/cus_1/explain?wait=1s"])
async def test_there_is_nothing_else_to_wait_for(sidecar: Running, path: str) -> None:
    """Only a check has an answer to wait for."""
    status, body = await sidecar.get(path)
    assert (status, body["code"]) == (400, "unknown_parameter")
