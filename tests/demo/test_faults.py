"""What can go wrong, as plain HTTP meets it."""

import asyncio
from typing import Any

import aiohttp
import pytest

from sidecar.demo import FakeStripe, Fault, Seen
from tests.demo.asking import (
    ACTIVE,
    FEATURES,
    KEY,
    Curl,
    arrived,
    curling,
    filled,
    raw,
)


class TestFaults:
    @pytest.mark.parametrize(
        ("fault", "told", "headers"),
        [
            (Fault.ERROR, (500, "api_error", None), {"Stripe-Rate-Limited-Reason": None}),
            (
                Fault.THROTTLED,
                (429, "invalid_request_error", "rate_limit"),
                {"Stripe-Rate-Limited-Reason": "endpoint-rate"},
            ),
            (
                Fault.LOCK_TIMEOUT,
                (429, "invalid_request_error", "lock_timeout"),
                {"Stripe-Should-Retry": "true", "Request-Id": None, "Stripe-Rate-Limited-Reason": None},
            ),
        ],
    )
    async def test_stripe_says_what_is_wrong(
        self, fake: FakeStripe, curl: Curl, fault: Fault, told: Any, headers: Any
    ) -> None:
        """Stripe's own troubles come as its error objects, with the headers that tell them apart."""
        fake.break_with(fault)
        answer = await curl.held()
        assert (answer.status, answer.error["type"], answer.error.get("code")) == told
        assert {name: answer.headers.get(name) for name in headers} == headers
        assert fake.requests[-1].status == answer.status

    @pytest.mark.parametrize(("fault", "status"), [(Fault.HTML, 502), (Fault.NOT_JSON, 200)])
    async def test_something_else_answers(self, fake: FakeStripe, curl: Curl, fault: Fault, status: int) -> None:
        """A page of HTML, with nothing of Stripe's about it."""
        fake.break_with(fault)
        answer = await curl.held()
        assert (answer.status, answer.headers["Content-Type"]) == (status, "text/html")
        assert answer.body.startswith("<")
        assert "Request-Id" not in answer.headers

    async def test_half_an_answer(self, fake: FakeStripe, curl: Curl) -> None:
        """The whole length is announced, half of the true body arrives, and then the end."""
        fake.grant("cus_a", "sso")
        _, whole = await raw(curl.url)
        fake.break_with(Fault.HALF)
        head, half = await raw(curl.url)
        assert f"content-length: {len(whole)}" in head.lower()
        assert half == whole[: len(whole) // 2]
        with pytest.raises(aiohttp.ClientPayloadError):
            await curl.held()

    async def test_a_torn_answer(self, fake: FakeStripe, curl: Curl) -> None:
        """The same, but the connection is reset, which is another error to who reads."""
        fake.grant("cus_a", "sso")
        fake.break_with(Fault.TORN)
        with pytest.raises(ConnectionResetError):
            await raw(curl.url)
        with pytest.raises(aiohttp.ClientError):
            await curl.held()
        assert [seen.status for seen in fake.requests] == [200, 200]

    async def test_an_answer_in_drops(self, fake: FakeStripe, curl: Curl) -> None:
        """A byte at a time, and the rest at once when it is mended."""
        fake.grant("cus_a", "sso")
        fake.break_with(Fault.DRIP)
        assert (await curl.held()).keys == ["sso"]
        fake.break_with(Fault.DRIP, delay=60)
        params = {"customer": "cus_a"}
        async with curl.session.get(curl.url + ACTIVE, headers={"Authorization": f"Bearer {KEY}"}, params=params) as it:
            assert await it.content.readany() == b"{"
            fake.break_with(None)
            assert b"sso" in await it.read()

    async def test_no_answer_at_all(self, fake: FakeStripe, curl: Curl) -> None:
        """The connection closes without a byte."""
        fake.break_with(Fault.RESET)
        assert await raw(curl.url) == ("", b"")
        assert fake.requests[-1].status is None

    async def test_what_hangs_is_let_go_when_mended(self, fake: FakeStripe, curl: Curl) -> None:
        """Nothing comes until the fault is gone, and then the answer that was true on arrival."""
        fake.grant("cus_a", "sso")
        fake.break_with(Fault.HANG)
        async with asyncio.TaskGroup() as group:
            hanging = group.create_task(curl.held())
            await arrived(fake)
            fake.revoke("cus_a", "sso")
            done, _ = await asyncio.wait([hanging], timeout=0.02)
            assert not done
            fake.break_with(None)
        assert hanging.result().keys == ["sso"]

    async def test_slow_is_true_and_late(self, fake: FakeStripe, curl: Curl) -> None:
        """The answer comes after the delay, as it was on arrival."""
        fake.grant("cus_a", "sso")
        fake.break_with(Fault.SLOW, delay=0.03)

        def soon(_: Seen) -> None:
            asyncio.get_running_loop().call_soon(fake.revoke, "cus_a", "sso")

        fake.on_request = soon
        start = asyncio.get_running_loop().time()
        answer = await curl.held()
        assert asyncio.get_running_loop().time() - start >= 0.03
        assert (answer.keys, fake.held("cus_a")) == (["sso"], [])

    async def test_lists_without_end(self, fake: FakeStripe, curl: Curl) -> None:
        """Endless promises more after nothing; repeated gives the first page for any cursor."""
        ids = filled(fake, 3)
        fake.break_with(Fault.ENDLESS)
        endless = await curl.held()
        assert (endless.body["data"], endless.body["has_more"]) == ([], True)
        fake.break_with(Fault.REPEATED)
        for params in ({}, {"starting_after": ids[0]}, {"starting_after": ids[2]}):
            repeated = await curl.held(**params)
            assert [e["id"] for e in repeated.body["data"]] == ids
            assert repeated.body["has_more"]
        assert (await curl(f"{ACTIVE}/{ids[0]}")).body["id"] == ids[0]

    @pytest.mark.parametrize("key", ["sk_test_demo", "sk_live_demo"])
    async def test_objects_of_the_other_mode(self, key: str) -> None:
        """Entitlements and inlined features claim the mode that the key is not of."""
        fake = FakeStripe(key=key)
        fake.grant("cus_a", "sso")
        fake.break_with(Fault.OTHER_MODE)
        async with curling(fake) as curl:
            answer = await curl(ACTIVE, key=key, params={"customer": "cus_a", "expand[]": "data.feature"})
        (entitlement,) = answer.body["data"]
        assert entitlement["livemode"] is entitlement["feature"]["livemode"] is (not fake.livemode)

    async def test_a_fault_can_wait_and_end(self, fake: FakeStripe, curl: Curl) -> None:
        """Two requests pass, two fail, and the rest pass again."""
        fake.add_customer("cus_a")
        fake.break_with(Fault.ERROR, after=2, times=2)
        assert [(await curl.held()).status for _ in range(6)] == [200, 200, 500, 500, 200, 200]
        fake.break_with(Fault.ERROR)
        fake.break_with(None)
        assert (fake.fault, (await curl.held()).status) == (None, 200)

    async def test_a_fault_can_be_of_one_operation(self, fake: FakeStripe, curl: Curl) -> None:
        """Only the named operation is counted and spoiled; a request without the key is neither."""
        fake.add_customer("cus_a")
        fake.break_with(Fault.ERROR, operation="list", times=1)
        assert (await curl(FEATURES)).status == 200
        assert (await curl(ACTIVE, key="sk_test_wrong")).status == 401
        assert (await curl.held()).status == 500
        assert (await curl.held()).status == 200
