"""Stripe's surface: what the official SDK sees here is what it sees at Stripe."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import stripe as official

from sidecar.demo import FakeStripe, Fault, serving
from tests.api.test_checks import SIZES, give
from tests.fakes import KEY, Running, running

pytestmark = pytest.mark.usefixtures("each_way")

LIST = "/v1/entitlements/active_entitlements"


def sdk(base: str, **options: Any) -> official.StripeClient:
    """Return the official client, pointed at ``base``."""
    return official.StripeClient(KEY, base_addresses={"api": base}, max_network_retries=0, **options)


def plain(item: Any) -> Any:
    """Return what an SDK object holds."""
    return item.to_dict() if hasattr(item, "to_dict") else item


@pytest.fixture(autouse=True)
def _no_telemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(official, "enable_telemetry", False)


@pytest.fixture
async def both(sidecar: Running, upstream: str) -> tuple[str, str]:
    return sidecar.url, upstream


async def seen_by(base: str, work: Callable[[official.StripeClient], Any]) -> Any:
    """Return what ``work`` sees at ``base``, in a thread: a value, or an error with all that callers look at."""

    def attempt() -> Any:
        try:
            return plain(work(sdk(base)))
        except official.StripeError as error:
            return (
                type(error).__name__,
                error.http_status,
                error.code,
                getattr(error, "param", None),
                error.user_message,
            )

    return await asyncio.to_thread(attempt)


async def same(both: tuple[str, str], work: Callable[[official.StripeClient], Any]) -> Any:
    """Return what ``work`` sees through the sidecar, having seen the same at the built-in Stripe."""
    through, direct = [await seen_by(base, work) for base in both]
    assert through == direct
    return through


# A request per item adds nothing beyond twenty items.
PAGES = [(count, limit) for count in SIZES for limit in (1, 10, 100) if count <= 20 or limit > 1]


@pytest.mark.parametrize(("count", "limit"), PAGES)
async def test_pages_forwards_and_backwards(both: tuple[str, str], stripe: FakeStripe, count: int, limit: int) -> None:
    """Auto-pagination yields the same items in the same order in both directions."""
    keys = give(stripe, "cus_1", count)[::-1]

    def forwards(client: official.StripeClient) -> list[Any]:
        found = client.v1.entitlements.active_entitlements.list({"customer": "cus_1", "limit": limit})
        return [plain(item) for item in found.auto_paging_iter()]

    items = await same(both, forwards)
    assert [item["lookup_key"] for item in items] == keys
    if not items:
        return

    def backwards(client: official.StripeClient) -> list[Any]:
        params = {"customer": "cus_1", "limit": limit, "ending_before": items[-1]["id"]}
        found = client.v1.entitlements.active_entitlements.list(params)  # type: ignore[arg-type]
        return [plain(item) for item in found.auto_paging_iter()]

    assert [item["lookup_key"] for item in await same(both, backwards)] == keys[:-1][::-1]


async def test_the_asynchronous_sdk_works(both: tuple[str, str], stripe: FakeStripe) -> None:
    """The async client pages and retrieves as the synchronous one does."""
    keys = give(stripe, "cus_1", 101)[::-1]
    found: list[list[Any]] = []
    for base in both:
        client = sdk(base, http_client=official.AIOHTTPClient())
        page = await client.v1.entitlements.active_entitlements.list_async({"customer": "cus_1", "limit": 100})
        items = [plain(item) async for item in page.auto_paging_iter()]
        one = await client.v1.entitlements.active_entitlements.retrieve_async(items[100]["id"])
        with pytest.raises(official.InvalidRequestError, match="No such customer"):
            await client.v1.entitlements.active_entitlements.list_async({"customer": "cus_nobody"})
        found.append([*items, plain(one)])
        await official_close(client)
    assert found[0] == found[1]
    assert [item["lookup_key"] for item in found[0]] == [*keys, keys[100]]


async def official_close(client: official.StripeClient) -> None:
    """Close the SDK's connections, which it has no public way to close."""
    await client._requestor._client.close_async()  # type: ignore[union-attr]


REQUESTS: dict[str, Callable[[official.StripeClient], Any]] = {
    "plain": lambda client: client.v1.entitlements.active_entitlements.list({"customer": "cus_1"}),
    "expanded": lambda client: client.v1.entitlements.active_entitlements.list(
        {"customer": "cus_1", "expand": ["data.feature"], "limit": 2}
    ),
    "after": lambda client: client.v1.entitlements.active_entitlements.list(
        {"customer": "cus_1", "starting_after": "ent_test_gone"}
    ),
    "before": lambda client: client.v1.entitlements.active_entitlements.list(
        {"customer": "cus_1", "ending_before": "ent_test_gone"}
    ),
    "both cursors": lambda client: client.v1.entitlements.active_entitlements.list(
        {"customer": "cus_1", "starting_after": "a", "ending_before": "b"}
    ),
    "unknown customer": lambda client: client.v1.entitlements.active_entitlements.list({"customer": "cus_nobody"}),
    "no customer": lambda client: client.v1.entitlements.active_entitlements.list({}),  # type: ignore[typeddict-item]
    "limit 0": lambda client: client.v1.entitlements.active_entitlements.list({"customer": "cus_1", "limit": 0}),
    "limit 101": lambda client: client.v1.entitlements.active_entitlements.list({"customer": "cus_1", "limit": 101}),
    "limit x": lambda client: client.v1.entitlements.active_entitlements.list(
        {"customer": "cus_1", "limit": "x"}  # type: ignore[typeddict-item]
    ),
    "unknown parameter": lambda client: client.v1.entitlements.active_entitlements.list(
        {"customer": "cus_1", "colour": "blue"}  # type: ignore[typeddict-unknown-key]
    ),
    "unknown id": lambda client: client.v1.entitlements.active_entitlements.retrieve("ent_test_gone"),
}


@pytest.mark.parametrize("name", REQUESTS)
async def test_every_request_gets_stripes_answer(both: tuple[str, str], stripe: FakeStripe, name: str) -> None:
    """Values and typed errors (class, status, code, param, message) are those of Stripe itself."""
    give(stripe, "cus_1", 3)
    await same(both, REQUESTS[name])


async def test_connected_accounts(both: tuple[str, str], stripe: FakeStripe) -> None:
    """The SDK's stripe_account selects whose customer it is."""
    stripe.grant("cus_1", "a", account="acct_other")
    stripe.add_customer("cus_1")

    def keys(client: official.StripeClient) -> list[str]:
        found = client.v1.entitlements.active_entitlements.list({"customer": "cus_1"}, {"stripe_account": "acct_other"})
        return [item.lookup_key for item in found.data]

    assert await same(both, keys) == ["a"]


async def test_a_listed_entitlement_is_retrieved_from_memory(sidecar: Running, stripe: FakeStripe) -> None:
    """An id that was handed out is answered without Stripe, with its age; once it is revoked Stripe says so."""
    give(stripe, "cus_1", 2)
    _, page = await sidecar.get(f"{LIST}?customer=cus_1")
    id_ = page["data"][0]["id"]
    stripe.break_with(Fault.ERROR)
    async with sidecar.session.get(
        f"{sidecar.url}{LIST}/{id_}", headers={"Stripe-Version": "2026-10-28.endive"}
    ) as response:
        assert response.status == 200
        assert await response.json() == page["data"][0]
        assert response.headers["Cache-Status"].startswith("entitlement-sidecar; hit")
        assert response.headers["Age"] == "1"
        assert response.headers["Stripe-Version"] == "2026-10-28.endive"
    assert stripe.count() == 1
    stripe.break_with(None)
    stripe.revoke("cus_1", page["data"][0]["lookup_key"])
    await sidecar.ask("POST", "/v1/customers/cus_1/refresh")
    status, body = await sidecar.get(f"{LIST}/{id_}")
    assert (status, body["error"]["code"]) == (404, "resource_missing")


async def test_expand_is_passed_on_within_the_budget(sidecar: Running, stripe: FakeStripe) -> None:
    """What is passed on is Stripe's answer with its Request-Id, and costs a request each."""
    give(stripe, "cus_1", 1)
    for _ in range(2):
        async with sidecar.session.get(f"{sidecar.url}{LIST}?customer=cus_1&expand[]=data.feature") as response:
            assert response.headers["Cache-Status"] == "entitlement-sidecar; fwd=bypass"
            assert response.headers["Request-Id"] == stripe.requests[-1].request_id
            assert (await response.json())["data"][0]["feature"]["object"] == "entitlements.feature"
    assert stripe.count() == 2
    assert 'upstream_requests_total{operation="relay",status="200"} 2.0' in await sidecar.metrics()


async def test_over_the_budget(upstream: str, stripe: FakeStripe) -> None:
    """Without budget the SDK gets the error that it knows for that, and Stripe gets nothing."""
    give(stripe, "cus_1", 1)
    async with running(upstream, rate=0.01, burst=1) as sidecar:
        assert (await sidecar.get(f"{LIST}?customer=cus_1"))[0] == 200
        status, body = await sidecar.get(f"{LIST}?customer=cus_1&expand[]=data.feature")
        assert (status, body["error"]["code"]) == (429, "rate_limit")
        assert (await seen_by(sidecar.url, REQUESTS["expanded"]))[0] == "RateLimitError"
    assert stripe.count() == 1


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault.ERROR, ("APIError", 503)),
        (Fault.THROTTLED, ("RateLimitError", 429)),
        (Fault.HTML, ("APIError", 503)),
        (Fault.HALF, ("APIError", 503)),
        (Fault.RESET, ("APIError", 503)),
        (Fault.HANG, ("APIError", 503)),
    ],
)
async def test_when_nothing_is_known_and_stripe_fails(
    upstream: str, stripe: FakeStripe, fault: Fault, error: tuple[str, int]
) -> None:
    """The SDK raises its own error type and is told that a retry is pointless."""
    stripe.break_with(fault)
    async with running(upstream, deadline=0.2 if fault is Fault.HANG else 1) as sidecar:
        assert (await seen_by(sidecar.url, REQUESTS["plain"]))[:2] == error
        async with sidecar.session.get(f"{sidecar.url}{LIST}?customer=cus_1") as response:
            assert response.headers["Stripe-Should-Retry"] == "false"
        stripe.break_with(None)


async def test_a_rejected_key_and_a_missing_permission(stripe: FakeStripe) -> None:
    """The SDK sees AuthenticationError and PermissionError, in Stripe's words."""
    for key, permissions, expected in (
        ("sk_test_other", None, ("AuthenticationError", 401)),
        ("rk_test_narrow", frozenset[str](), ("PermissionError", 403)),
    ):
        fake = FakeStripe(key="sk_test_right" if permissions is None else key, permissions=permissions)
        async with serving(fake) as upstream, running(upstream, stripe_api_key=key) as sidecar:
            seen = await seen_by(sidecar.url, REQUESTS["plain"])
            assert seen[:2] == expected
            expanded = await seen_by(sidecar.url, REQUESTS["expanded"])
            assert expanded[:2] == expected


async def test_odd_requests_never_reach_stripe(sidecar: Running, stripe: FakeStripe) -> None:
    """A customer that cannot be, an id that cannot be, a context we do not serve: refused here, in Stripe's words."""
    for path, headers in (
        (f"{LIST}?customer=../charges", {}),
        (f"{LIST}?customer=", {}),
        (f"{LIST}/ent%2F..%2F..", {}),
        (f"{LIST}/{'e' * 256}", {}),
        (f"{LIST}?customer=cus_1", {"Stripe-Context": "acct_1"}),
        (f"{LIST}?customer=%FF", {}),
        (f"{LIST}?customer=../charges&expand[]=data.feature", {}),
        (f"{LIST}?customer=cus_1&customer=../charges", {}),
        (f"{LIST}?customer=a%00&starting_after=a&ending_before=b", {}),
        (f"{LIST}?expand[]=data.feature", {}),
    ):
        status, body = await sidecar.ask("GET", path, headers=headers)
        assert status == 400
        assert body["error"]["type"] == "invalid_request_error"
    status, body = await sidecar.get("/v1/entitlements/features")
    assert (status, body["error"]["message"]) == (404, "Unrecognized request URL (GET: /v1/entitlements/features).")
    assert not stripe.requests


async def test_a_parameter_twice_is_for_stripe_to_judge(sidecar: Running, stripe: FakeStripe) -> None:
    """What cannot be understood in one way only is passed on."""
    give(stripe, "cus_1", 1)
    await sidecar.get(f"{LIST}?customer=cus_1&limit=1&limit=1")
    assert stripe.requests[-1].operation == "list"
    assert 'operation="relay",status="200"} 1.0' in await sidecar.metrics()


async def test_only_if_cached_is_never_passed_on(sidecar: Running, stripe: FakeStripe) -> None:
    """A caller that wants memory or nothing does not make us ask Stripe."""
    status, _ = await sidecar.get(f"{LIST}?customer=cus_1&expand[]=data.feature", Cache_Control="only-if-cached")
    assert status == 504
    assert not stripe.requests


async def test_an_id_whose_customer_cannot_be_read(upstream: str, stripe: FakeStripe) -> None:
    """When the snapshot is too old and cannot be renewed there is one error within one deadline."""
    give(stripe, "cus_1", 1)
    async with running(upstream, deadline=1) as sidecar:
        _, page = await sidecar.get(f"{LIST}?customer=cus_1")
        sidecar.clock.advance(100_000)
        stripe.break_with(Fault.ERROR)
        status, _ = await sidecar.get(f"{LIST}/{page['data'][0]['id']}")
        assert status == 503
        assert {seen.operation for seen in stripe.requests} == {"list"}


async def test_what_is_passed_on_has_a_deadline_too(upstream: str, stripe: FakeStripe) -> None:
    """A hanging Stripe is given up after ``deadline``, as for every other question."""
    stripe.break_with(Fault.HANG)
    async with running(upstream, deadline=0.1) as sidecar:
        status, body = await sidecar.get(f"{LIST}/ent_test_x")
        assert status == 503
        assert "did not answer within 0.1 s" in body["error"]["message"]
        stripe.break_with(None)


async def test_answers_name_the_version_that_was_asked_for(sidecar: Running, stripe: FakeStripe) -> None:
    """The sidecar's own, from memory and passed on alike; not what the caller would have liked."""
    give(stripe, "cus_1", 1)
    for query in ("", "&expand[]=data.feature"):
        url = f"{sidecar.url}{LIST}?customer=cus_1{query}"
        async with sidecar.session.get(url, headers={"Stripe-Version": "2024-04-10"}) as response:
            assert response.headers["Stripe-Version"] == "2026-10-28.endive"
