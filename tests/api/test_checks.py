"""Our own surface, asked over a socket."""

import asyncio
import io
import re

import pytest
from yarl import URL

from sidecar.demo import FakeStripe, Fault
from sidecar.model import Customer
from tests.fakes import SECRET, Running, running

pytestmark = pytest.mark.usefixtures("each_way")

SIZES = [0, 1, 9, 10, 11, 99, 100, 101, 250]


def give(stripe: FakeStripe, customer: str, count: int) -> list[str]:
    """Grant ``count`` features and return their keys."""
    stripe.add_customer(customer)
    keys = [f"feature-{place:03}" for place in range(count)]
    for key in keys:
        stripe.grant(customer, key)
    return keys


async def test_a_check_says_what_is_true_and_how_old_it_is(sidecar: Running, stripe: FakeStripe) -> None:
    """The members are those of the contract, in its order; the first answer comes from Stripe, the next from memory."""
    stripe.grant("cus_1", "seats-feature")
    first = await sidecar.check("cus_1", "seats-feature")
    assert list(first) == ["customer", "lookup_key", "entitled", "reason", "source", "age", "stale", "as_of"]
    assert (first["entitled"], first["reason"], first["source"], first["stale"]) == (
        True,
        "entitled",
        "upstream",
        False,
    )
    second = await sidecar.check("cus_1", "seats-feature")
    assert second["source"] == "memory"
    assert second["as_of"] == first["as_of"]
    assert second["age"] >= first["age"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", second["as_of"])
    assert stripe.count() == 1


async def test_headers_say_the_age_rounded_up(sidecar: Running, stripe: FakeStripe) -> None:
    """Age (RFC 9111) is never younger than the body's age, and Cache-Status (RFC 9211) says hit or forward."""
    stripe.grant("cus_1", "a")
    url = f"{sidecar.url}/v1/customers/cus_1/entitlements/a"
    async with sidecar.session.get(url) as response:
        assert re.fullmatch(r"entitlement-sidecar; fwd=miss; stored; ttl=299", response.headers["Cache-Status"])
    sidecar.clock.advance(12.4)
    async with sidecar.session.get(url) as response:
        assert response.headers["Age"] == "13"
        assert response.headers["Cache-Status"] == "entitlement-sidecar; hit; ttl=287"
        assert response.headers["Cache-Control"] == "no-store"
        assert response.content_type == "application/json"
        assert 12.4 < (await response.json())["age"] < 13


async def test_three_different_noes(sidecar: Running, stripe: FakeStripe) -> None:
    """Not entitled, no such customer, and nothing known are three reasons."""
    stripe.add_customer("cus_1")
    assert (await sidecar.check("cus_1", "a"))["reason"] == "not_entitled"
    assert (await sidecar.check("cus_nobody", "a"))["reason"] == "unknown_customer"
    stripe.break_with(Fault.ERROR)
    unavailable = await sidecar.check("cus_2", "a", "?default=deny")
    assert (unavailable["reason"], unavailable["source"], unavailable["entitled"]) == ("unavailable", "policy", False)
    assert unavailable["age"] is None
    assert unavailable["code"] in ("broken", "deadline")


@pytest.mark.parametrize("count", SIZES)
async def test_lists_of_every_size_answer_exactly(sidecar: Running, stripe: FakeStripe, count: int) -> None:
    """Page boundaries at 10 and 100 lose and invent nothing."""
    keys = give(stripe, "cus_1", count)
    status, body = await sidecar.get("/v1/customers/cus_1/entitlements")
    assert status == 200
    assert [item["lookup_key"] for item in body["entitlements"]] == keys[::-1]
    asked = [*keys, "feature-999"]
    _, batch = await sidecar.ask(
        "POST", "/v1/checks", json={"checks": [{"customer": "cus_1", "lookup_key": key} for key in asked]}
    )
    assert [result["entitled"] for result in batch["results"]] == [True] * count + [False]
    assert stripe.count("list") == max(1, -(-count // 100))


async def test_two_features_with_one_lookup_key(sidecar: Running, stripe: FakeStripe) -> None:
    """An archived feature's key may be used again: a check holds while any entitlement has it."""
    stripe.grant("cus_1", "seats")
    stripe.grant("cus_1", "seats", new_feature=True)
    _, body = await sidecar.get("/v1/customers/cus_1/entitlements")
    assert [item["lookup_key"] for item in body["entitlements"]] == ["seats", "seats"]
    assert len({item["feature"] for item in body["entitlements"]}) == 2
    assert (await sidecar.check("cus_1", "seats"))["entitled"] is True


async def test_a_list_that_did_not_change_is_not_sent_again(sidecar: Running, stripe: FakeStripe) -> None:
    """The ETag speaks of the entitlements, not of their age; If-None-Match gets 304 until they change."""
    give(stripe, "cus_1", 3)
    url = f"{sidecar.url}/v1/customers/cus_1/entitlements"
    async with sidecar.session.get(url) as response:
        tag = response.headers["ETag"]
        assert tag.startswith('W/"')
    sidecar.clock.advance(10)
    async with sidecar.session.get(url, headers={"If-None-Match": tag}) as response:
        assert response.status == 304
        assert response.headers["ETag"] == tag
        assert response.headers["Age"] == "11"
        assert await response.read() == b""
    stripe.grant("cus_1", "new")
    _, refreshed = await sidecar.ask("POST", "/v1/customers/cus_1/refresh")
    assert refreshed["entitlements"][0]["lookup_key"] == "new"
    async with sidecar.session.get(url, headers={"If-None-Match": tag}) as response:
        assert response.status == 200
        assert response.headers["ETag"] != tag


async def test_a_customer_that_stripe_does_not_know_has_no_list(sidecar: Running) -> None:
    """The list of an unknown customer is 404, with the age of that knowledge."""
    status, body = await sidecar.get("/v1/customers/cus_nobody/entitlements")
    assert (status, body["code"]) == (404, "unknown_customer")
    assert body["detail"] == "No such customer: 'cus_nobody'"
    assert body["source"] == "upstream"


async def test_a_customer_of_the_other_mode(
    sidecar: Running, stripe: FakeStripe, caplog: pytest.LogCaptureFixture
) -> None:
    """Unknown, with a code of its own and a warning: the key or the customer is of the wrong environment."""
    stripe.other_mode_customers = {"cus_live", "cus_live2"}
    for customer in ("cus_live", "cus_live2"):
        answer = await sidecar.check(customer, "a")
        assert (answer["entitled"], answer["reason"], answer["code"]) == (False, "unknown_customer", "wrong_mode")
    status, body = await sidecar.get("/v1/customers/cus_live/entitlements")
    assert (status, body["code"]) == (404, "wrong_mode")
    assert "a similar object exists in live mode" in body["detail"]
    assert caplog.text.count("another mode") == 2
    assert 'flights_total{outcome="wrong_mode"} 2.0' in await sidecar.metrics()


async def test_unknown_customers_are_remembered_for_a_while(sidecar: Running, stripe: FakeStripe) -> None:
    """Within unknown_for Stripe is not asked again; after it a customer made meanwhile is found."""
    for _ in range(3):
        assert (await sidecar.check("cus_new", "a"))["reason"] == "unknown_customer"
    assert stripe.count() == 1
    stripe.grant("cus_new", "a")
    sidecar.clock.advance(61)
    assert (await sidecar.check("cus_new", "a"))["entitled"] is True


async def test_a_batch_answers_in_order_and_shares_flights(upstream: str, stripe: FakeStripe) -> None:
    """A thousand questions about two customers cost two reads; each answer stands at its question's place."""
    asyncio.get_running_loop().set_debug(False)  # it makes each of many tasks slow
    stripe.grant("cus_1", "a")
    stripe.grant("cus_2", "b")
    checks = [{"customer": f"cus_{1 + place % 2}", "lookup_key": "ab"[place % 3 % 2]} for place in range(1000)]
    async with running(upstream, deadline=15) as sidecar:
        status, body = await sidecar.ask("POST", "/v1/checks", json={"checks": checks})
    assert status == 200
    assert [(found["customer"], found["lookup_key"]) for found in body["results"]] == [
        (check["customer"], check["lookup_key"]) for check in checks
    ]
    held = {("cus_1", "a"), ("cus_2", "b")}
    assert all(found["entitled"] is ((found["customer"], found["lookup_key"]) in held) for found in body["results"])
    assert stripe.count() == 2


async def test_a_batch_with_one_failing_customer_answers_the_others(sidecar: Running, stripe: FakeStripe) -> None:
    """What cannot be answered says so at its own place, by policy or with entitled null."""
    stripe.grant("cus_1", "a")
    await sidecar.check("cus_1", "a")
    stripe.break_with(Fault.ERROR)
    checks = [{"customer": "cus_1", "lookup_key": "a"}, {"customer": "cus_2", "lookup_key": "a"}]
    status, body = await sidecar.ask(
        "POST", "/v1/checks", json={"checks": checks}, headers={"Cache-Control": "only-if-cached"}
    )
    assert status == 200
    assert body["results"][0]["entitled"] is True
    assert (body["results"][1]["entitled"], body["results"][1]["code"]) == (None, "not_cached")


async def test_a_batch_that_waited_tells_the_age_of_now(upstream: str, stripe: FakeStripe) -> None:
    """What was in memory all along has grown older by the time that another question waited for Stripe."""
    stripe.grant("cus_1", "a")
    async with running(upstream, deadline=1) as sidecar:
        await sidecar.sidecar.heart.refresher.renew(Customer("cus_1"))
        stripe.break_with(Fault.HANG)
        checks = [{"customer": "cus_1", "lookup_key": "a"}, {"customer": "cus_2", "lookup_key": "a"}]
        _, body = await sidecar.ask("POST", "/v1/checks", json={"checks": checks})
        waited, unknown = body["results"]
        assert waited["age"] >= 1
        assert unknown["source"] == "policy"
        sidecar.clock.advance(299.9)
        _, body = await sidecar.ask("POST", "/v1/checks", json={"checks": checks})
        assert body["results"][0]["stale"] is True, "fresh when it was asked, but no longer when it was answered"
        stripe.break_with(None)


async def test_accounts_are_apart(sidecar: Running, stripe: FakeStripe) -> None:
    """One customer id in two accounts is two customers, on every surface."""
    stripe.grant("cus_1", "a")
    stripe.grant("cus_1", "b", account="acct_other")
    assert (await sidecar.check("cus_1", "a"))["entitled"] is True
    assert (await sidecar.check("cus_1", "a", Stripe_Account="acct_other"))["entitled"] is False
    other = await sidecar.check("cus_1", "b", Stripe_Account="acct_other")
    assert (other["entitled"], other["account"]) == (True, "acct_other")
    checks = [
        {"customer": "cus_1", "lookup_key": "b", "account": "acct_other"},
        {"customer": "cus_1", "lookup_key": "b"},
    ]
    _, body = await sidecar.ask("POST", "/v1/checks", json={"checks": checks})
    assert [found["entitled"] for found in body["results"]] == [True, False]


async def test_a_forced_refresh_asks_stripe_after_the_request_came(sidecar: Running, stripe: FakeStripe) -> None:
    """A flight that was in the air before the refresh was asked for is not enough: it may have asked too early."""
    stripe.add_customer("cus_1")
    stripe.break_with(Fault.SLOW, delay=0.05, times=1)
    async with asyncio.TaskGroup() as group:
        early = group.create_task(sidecar.check("cus_1", "a"))
        while not stripe.count():
            await asyncio.sleep(0.001)
        stripe.grant("cus_1", "a")
        _, body = await sidecar.ask("POST", "/v1/customers/cus_1/refresh")
    assert [item["lookup_key"] for item in body["entitlements"]] == ["a"]
    assert early.result()["entitled"] is False
    assert stripe.count() == 2


async def test_a_refresh_need_not_be_waited_for(sidecar: Running, stripe: FakeStripe) -> None:
    """With wait=0 the answer is 202 at once, and the list is learnt soon after."""
    stripe.add_customer("cus_1")
    await sidecar.check("cus_1", "a")
    stripe.grant("cus_1", "a")
    assert await sidecar.ask("POST", "/v1/customers/cus_1/refresh?wait=0") == (
        202,
        {"customer": "cus_1", "refreshing": True},
    )
    while not (await sidecar.check("cus_1", "a"))["entitled"]:
        await asyncio.sleep(0.001)
    assert stripe.count() == 2


async def test_a_refresh_that_fails_says_why(upstream: str, stripe: FakeStripe) -> None:
    """503 with the cause; what was in memory stays."""
    stripe.grant("cus_1", "a")
    async with running(upstream, deadline=1) as sidecar:
        await sidecar.sidecar.heart.refresher.renew(Customer("cus_1"))
        stripe.break_with(Fault.ERROR)
        status, body = await sidecar.ask("POST", "/v1/customers/cus_1/refresh")
        assert (status, body["code"], body.get("cause")) == (503, "broken", None)
        assert body["age"] > 0
        assert (await sidecar.check("cus_1", "a"))["entitled"] is True


async def test_explain_shows_the_flight(sidecar: Running, stripe: FakeStripe) -> None:
    """State, age, the last flight's pages and Stripe's request ids, and the policy."""
    _, nothing = await sidecar.get("/v1/customers/cus_1/explain")
    assert (nothing["state"], nothing["snapshot"], nothing["last_flight"]) == ("absent", None, None)
    give(stripe, "cus_1", 101)
    await sidecar.check("cus_1", "a")
    _, body = await sidecar.get("/v1/customers/cus_1/explain")
    assert body["state"] == "fresh"
    assert body["snapshot"]["entitlements"] == 101
    assert body["last_flight"]["outcome"] == "landed"
    assert body["last_flight"]["pages"] == 2
    sent = body["last_flight"]["requests"]
    assert [request["request_id"] for request in sent] == [seen.request_id for seen in stripe.requests]
    assert body["policy"] == {"*": "deny"}
    assert stripe.count() == 2, "explaining asks nothing"


async def test_explain_says_what_vouches_for_an_answer(sidecar: Running, stripe: FakeStripe) -> None:
    """Its own list first, the feed once that has told of every change since; the watermark is the account's."""
    stripe.now = sidecar.clock
    stripe.grant("cus_1", "a")
    sidecar.clock.advance(100)
    await sidecar.check("cus_1", "a")
    _, body = await sidecar.get("/v1/customers/cus_1/explain")
    assert (body["watermark"], body["snapshot"]["verified_by"], body["snapshot"]["news_at"]) == (None, "list", None)
    assert body["snapshot"]["as_of"] == body["snapshot"]["taken_at"]
    assert body["snapshot"]["lookup_keys"] == ["a"]
    await sidecar.sidecar.feed.poll()
    sidecar.clock.advance(400)
    await sidecar.sidecar.feed.poll()
    _, later = await sidecar.get("/v1/customers/cus_1/explain")
    assert later["state"] == "fresh"
    assert (later["snapshot"]["verified_by"], later["snapshot"]["as_of"]) == ("feed", later["watermark"])
    assert later["snapshot"]["taken_at"] == body["snapshot"]["taken_at"] < later["watermark"]
    assert 30 <= later["snapshot"]["age"] < 400
    _, nobody = await sidecar.get("/v1/customers/cus_2/explain")
    assert (nobody["state"], nobody["snapshot"], nobody["watermark"]) == ("absent", None, later["watermark"])
    assert stripe.count("list") == 1, "explaining asks nothing"


async def test_explain_says_that_there_was_news(upstream: str, stripe: FakeStripe) -> None:
    """Since when a list is known to be old, and that it is dirty until it was read again."""
    stripe.grant("cus_1", "a")
    async with running(upstream, webhook_secret=SECRET, dirty_wait=5, deadline=15) as sidecar:
        await sidecar.check("cus_1", "a")
        stripe.add_endpoint(f"{sidecar.webhook_url}/webhooks/stripe", SECRET)
        stripe.break_with(Fault.HANG, operation="list")
        stripe.revoke("cus_1", "a")
        await stripe.delivered()
        _, body = await sidecar.get("/v1/customers/cus_1/explain")
        assert (body["state"], body["flying"]) == ("dirty", True)
        assert body["snapshot"]["taken_at"] == body["snapshot"]["as_of"] < body["snapshot"]["news_at"]
        assert (body["snapshot"]["lookup_keys"], body["snapshot"]["unknown"]) == (["a"], None)
        stripe.break_with(None)
        assert (await sidecar.check("cus_1", "a"))["entitled"] is False
        _, clean = await sidecar.get("/v1/customers/cus_1/explain")
        assert (clean["state"], clean["snapshot"]["news_at"], clean["snapshot"]["lookup_keys"]) == ("fresh", None, [])
        assert clean["snapshot"]["taken_at"] >= body["snapshot"]["news_at"]


async def test_explain_while_in_the_air(sidecar: Running, stripe: FakeStripe) -> None:
    """A flight under way has neither landed nor an outcome."""
    stripe.break_with(Fault.HANG)
    await sidecar.ask("POST", "/v1/customers/cus_1/refresh?wait=0")
    while not stripe.count():
        await asyncio.sleep(0.001)
    _, body = await sidecar.get("/v1/customers/cus_1/explain")
    assert body["flying"] is True
    assert (body["last_flight"]["landed"], body["last_flight"]["outcome"]) == (None, None)
    stripe.break_with(None)


async def test_policies_by_glob(upstream: str, stripe: FakeStripe) -> None:
    """The first matching glob decides; error is a 503 that says unavailable."""
    stripe.break_with(Fault.ERROR)
    policy = '{"seats-*": "allow", "secret-*": "error"}'
    async with running(upstream, deadline=0.5, policy=policy) as sidecar:
        assert (await sidecar.check("cus_1", "seats-1"))["entitled"] is True
        assert (await sidecar.check("cus_1", "other"))["entitled"] is False
        status, body = await sidecar.get("/v1/customers/cus_1/entitlements/secret-1")
        assert (status, body["code"]) == (503, "broken")
        assert (await sidecar.check("cus_1", "secret-1", "?default=allow"))["entitled"] is True
        metrics = await sidecar.metrics()
        assert 'entitlement_sidecar_policy_answers_total{policy="allow"} 2.0' in metrics
        assert 'entitlement_sidecar_policy_answers_total{policy="error"} 1.0' in metrics


async def test_callers_bound_the_age(upstream: str, stripe: FakeStripe) -> None:
    """Each directive, with Stripe there."""
    stripe.grant("cus_1", "a")
    async with running(upstream, deadline=15) as sidecar:
        await sidecar.check("cus_1", "a")
        sidecar.clock.advance(100)
        assert (await sidecar.check("cus_1", "a", Cache_Control="max-age=200"))["source"] == "memory"
        assert (await sidecar.check("cus_1", "a", Cache_Control="max-age=50"))["source"] == "upstream"
        assert (await sidecar.check("cus_1", "a", Cache_Control="no-cache"))["source"] == "upstream"
        assert stripe.count() == 3


async def test_callers_bound_the_age_while_stripe_is_away(upstream: str, stripe: FakeStripe) -> None:
    """Each directive that can then be heeded, and what is answered when it cannot."""
    stripe.grant("cus_1", "a")
    async with running(upstream, deadline=0.05) as sidecar:
        await sidecar.sidecar.heart.refresher.renew(Customer("cus_1"))
        stripe.break_with(Fault.HANG)
        sidecar.clock.advance(400)
        old = await sidecar.check("cus_1", "a", Cache_Control="max-age=5, stale-if-error=900")
        assert (old["entitled"], old["stale"], old["source"]) == (True, True, "memory")
        status, body = await sidecar.get("/v1/customers/cus_1/entitlements/a", Cache_Control="max-age=5")
        assert (status, body["code"], body["cause"]) == (503, "too_old", "deadline")
        assert body["age"] >= 400
        status, body = await sidecar.get(
            "/v1/customers/cus_1/entitlements/a", Cache_Control="max-stale=5, only-if-cached"
        )
        assert (status, body["code"]) == (504, "not_cached")
        status, body = await sidecar.get("/v1/customers/cus_2/entitlements/a", Cache_Control="only-if-cached")
        assert (status, body["code"]) == (504, "not_cached")
        sidecar.clock.advance(90_000)
        assert (await sidecar.check("cus_1", "a"))["source"] == "policy"
        assert (await sidecar.check("cus_1", "a", Cache_Control="max-stale"))["entitled"] is True
        assert (await sidecar.check("cus_1", "a", Cache_Control="stale-if-error"))["stale"] is True
        stripe.break_with(None)


REFUSED = [
    ("GET", "/v1/customers/cus%2F1/entitlements/a", 400, "malformed_customer"),
    ("GET", "/v1/customers/cus-1/entitlements/a", 400, "malformed_customer"),
    ("GET", "/v1/customers//entitlements/a", 400, "malformed_customer"),
    ("GET", f"/v1/customers/{'c' * 256}/entitlements/a", 400, "malformed_customer"),
    ("GET", "/v1/customers/..%2F..%2Fcharges/entitlements", 400, "malformed_customer"),
    ("GET", "/v1/customers/%ff/entitlements", 400, "malformed_customer"),
    ("GET", "/v1/customers/cus_1/entitlements/", 400, "malformed_lookup_key"),
    ("GET", f"/v1/customers/cus_1/entitlements/{'k' * 201}", 400, "malformed_lookup_key"),
    ("GET", "/v1/customers/cus_1/entitlements/a%00b", 400, "malformed_lookup_key"),
    ("GET", "/v1/customers/cus_1/entitlements/a%0Ab", 400, "malformed_lookup_key"),
    ("GET", "/v1/customers/cus_1/entitlements/a%C2%85b", 400, "malformed_lookup_key"),
    ("GET", "/v1/customers/cus_1/entitlements/a%FFb", 400, "malformed_lookup_key"),
    ("GET", "/v1/customers/cus_1/entitlements/a%zz", 400, "malformed_lookup_key"),
    ("GET", "/v1/customers/cus_1/entitlements/a?default=maybe", 400, "malformed_default"),
    ("GET", "/v1/customers/cus_1/entitlements/a?default=deny&default=allow", 400, "malformed_default"),
    ("GET", "/v1/customers/cus_1/entitlements/a?defualt=deny", 400, "unknown_parameter"),
    ("GET", "/v1/customers/cus_1/entitlements/a?%FF=1", 400, "malformed_query"),
    ("POST", "/v1/customers/cus_1/refresh?wait=5", 400, "malformed_wait"),
    ("GET", "/v1/customers/cus_1/entitlements/a/b", 404, "not_found"),
    ("GET", "/", 404, "not_found"),
    ("POST", "/v1/customers/cus_1/entitlements/a", 405, "method_not_allowed"),
    ("GET", "/v1/checks", 405, "method_not_allowed"),
]


@pytest.mark.parametrize(("method", "path", "status", "code"), REFUSED, ids=[path[:60] for _, path, _, _ in REFUSED])
async def test_bad_input_gets_its_own_error(
    sidecar: Running, stripe: FakeStripe, method: str, path: str, status: int, code: str
) -> None:
    """Each is a problem document (RFC 9457) that names what was wrong, and nothing reaches Stripe."""
    async with sidecar.session.request(method, URL(sidecar.url + path, encoded=True)) as response:
        body = await response.json(content_type="application/problem+json")
        assert (response.status, body["status"], body["code"]) == (status, status, code)
        assert body["type"] == f"urn:entitlement-sidecar:problem:{code}"
        assert body["title"]
        assert body["detail"]
    assert not stripe.requests


async def test_bodies_come_as_they_are(sidecar: Running, stripe: FakeStripe) -> None:
    """An encoded body is refused, so that a small one cannot become a large one."""
    for encoding in ("gzip", "deflate", "br", "identity, gzip"):
        status, body = await sidecar.ask(
            "POST", "/v1/checks", data=b"\x1f\x8b garbage", headers={"Content-Encoding": encoding}
        )
        assert (status, body["code"]) == (415, "unsupported_encoding")
    assert not stripe.requests


async def test_one_pending_refresh_is_enough(sidecar: Running, stripe: FakeStripe) -> None:
    """Many calls with wait=0 for one customer are one task and at most two reads."""
    stripe.add_customer("cus_1")
    stripe.break_with(Fault.HANG)
    for _ in range(50):
        assert (await sidecar.ask("POST", "/v1/customers/cus_1/refresh?wait=0"))[0] == 202
    assert len([task for task in asyncio.all_tasks() if task.get_name().startswith("renew")]) == 1
    stripe.break_with(None)
    while sidecar.sidecar.heart.refresher.in_the_air():
        await asyncio.sleep(0.01)
    assert stripe.count() <= 2


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Cache-Control": "max-age=soon"}, "malformed_cache_control"),
        ({"Cache-Control": "max-age"}, "malformed_cache_control"),
        ({"Cache-Control": "@"}, "malformed_cache_control"),
        ({"Stripe-Account": "cus_1"}, "malformed_stripe_account"),
        ({"Stripe-Context": "acct_1"}, "malformed_stripe_context"),
    ],
)
async def test_bad_headers_are_refused(
    sidecar: Running, stripe: FakeStripe, headers: dict[str, str], code: str
) -> None:
    """A header that cannot be obeyed is refused rather than overlooked."""
    status, body = await sidecar.ask("GET", "/v1/customers/cus_1/entitlements/a", headers=headers)
    assert (status, body["code"]) == (400, code)
    assert not stripe.requests


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "malformed_body"),
        (b"{", 400, "malformed_body"),
        (b"[]", 400, "malformed_body"),
        (b'{"checks": {}}', 400, "malformed_body"),
        (b'{"checks": [], "more": 1}', 400, "malformed_body"),
        (b'{"checks": [1]}', 400, "malformed_checks"),
        (b'{"checks": [{"customer": "cus_1", "lookupkey": "a"}]}', 400, "malformed_checks"),
        (b'{"checks": [{"customer": "cus_1"}]}', 400, "malformed_lookup_key"),
        (b'{"checks": [{"customer": 1, "lookup_key": "a"}]}', 400, "malformed_customer"),
        (b'{"checks": [{"customer": "cus_1", "lookup_key": "a", "account": "x"}]}', 400, "malformed_account"),
        (b'{"checks": [' + b'{"customer": "cus_1", "lookup_key": "a"},' * 1000 + b"{}]}", 400, "too_many_checks"),
        (b'"' + b"x" * (2 << 20) + b'"', 413, "body_too_large"),
    ],
    ids=range(12),
)
async def test_bad_batches_are_refused(
    sidecar: Running, stripe: FakeStripe, body: bytes, status: int, code: str
) -> None:
    """The place of the first bad check is named, and none of them is asked."""
    found_status, found = await sidecar.ask("POST", "/v1/checks", data=io.BytesIO(body))
    assert (found_status, found["code"]) == (status, code)
    if "checks[" in found["detail"]:
        assert found["part"].startswith("checks[0]")
    assert not stripe.requests


async def test_an_empty_batch_is_answered(sidecar: Running) -> None:
    """No questions, no answers."""
    assert await sidecar.ask("POST", "/v1/checks", json={"checks": []}) == (200, {"results": []})


async def test_lookup_keys_are_compared_byte_for_byte(sidecar: Running, stripe: FakeStripe) -> None:
    """Which characters Stripe allows is not documented: slashes, dots, spaces and letters of any script work."""
    keys = {
        "a/b": "a%2Fb",
        "..": "%2e%2e",
        "a b": "a%20b",
        "ключ": "%D0%BA%D0%BB%D1%8E%D1%87",
        "a%2Fb": "a%252Fb",
        "a+b": "a+b",
    }
    for key in keys:
        stripe.grant("cus_1", key)
    for key, raw in keys.items():
        url = URL(f"{sidecar.url}/v1/customers/cus_1/entitlements/{raw}", encoded=True)
        async with sidecar.session.get(url) as response:
            body = await response.json()
            assert (body["lookup_key"], body["entitled"]) == (key, True)
    assert (await sidecar.check("cus_1", "A+B"))["entitled"] is False
