"""What the built-in Stripe answers: to the official SDK, to plain HTTP, compared with Stripe's schema."""

import base64
from typing import Any

import pytest
import stripe

from sidecar.demo import FakeStripe, Fault
from tests.demo.asking import ACTIVE, FEATURES, KEY, Check, Curl, aio, curling, filled, in_thread, sdk_list

LENGTHS = [0, 1, 9, 10, 11, 99, 100, 101, 250]


class TestTheSdk:
    @pytest.mark.parametrize("count", LENGTHS)
    async def test_pages_forwards_in_a_thread(self, fake: FakeStripe, curl: Curl, count: int) -> None:
        """The synchronous SDK collects every entitlement, newest first, ten at a time."""
        ids = filled(fake, count)
        got = await in_thread(curl.url, lambda sdk: [e.id for e in sdk_list(sdk).auto_paging_iter()])
        assert got == ids
        assert fake.count("list") == max(1, -(-count // 10))

    @pytest.mark.parametrize("count", LENGTHS)
    async def test_pages_forwards_on_the_loop(self, fake: FakeStripe, curl: Curl, count: int) -> None:
        """The asynchronous SDK does the same, a hundred at a time, with the features inlined."""
        filled(fake, count)
        page = await aio(curl).v1.entitlements.active_entitlements.list_async(
            {"customer": "cus_a", "limit": 100, "expand": ["data.feature"]}
        )
        got = [e async for e in page.auto_paging_iter()]
        assert [e.lookup_key for e in got] == fake.held("cus_a")
        assert [getattr(e.feature, "name", None) for e in got] == fake.held("cus_a")
        assert fake.count() == max(1, -(-count // 100))

    @pytest.mark.parametrize("count", LENGTHS)
    async def test_pages_backwards(self, fake: FakeStripe, curl: Curl, count: int) -> None:
        """From the oldest entitlement back, the SDK meets every newer one, oldest first."""
        *newer, oldest = filled(fake, count + 1)
        got = await in_thread(
            curl.url, lambda sdk: [e.id for e in sdk_list(sdk, ending_before=oldest).auto_paging_iter()]
        )
        assert got == newer[::-1]

    async def test_pages_backwards_on_the_loop(self, fake: FakeStripe, curl: Curl) -> None:
        """The asynchronous SDK pages backwards too."""
        *newer, oldest = filled(fake, 26)
        page = await aio(curl).v1.entitlements.active_entitlements.list_async(
            {"customer": "cus_a", "limit": 7, "ending_before": oldest}
        )
        assert [e.id async for e in page.auto_paging_iter()] == newer[::-1]

    async def test_retrieves_with_and_without_the_feature(self, fake: FakeStripe, curl: Curl) -> None:
        """An entitlement by its id names its feature, or carries it when expanded."""
        (ent,) = filled(fake, 1)
        service = aio(curl).v1.entitlements.active_entitlements
        plain = await service.retrieve_async(ent)
        assert isinstance(plain.feature, str)
        whole = await service.retrieve_async(ent, {"expand": ["feature"]})
        assert isinstance(whole.feature, stripe.entitlements.Feature)
        assert whole.feature.id == plain.feature

    @pytest.mark.parametrize(
        ("ask", "error", "told"),
        [
            (
                lambda sdk: sdk_list(sdk, "cus_x"),
                stripe.InvalidRequestError,
                (400, "resource_missing", "customer"),
            ),
            (
                lambda sdk: sdk_list(sdk, limit=0),
                stripe.InvalidRequestError,
                (400, "parameter_invalid_integer", "limit"),
            ),
            (
                lambda sdk: sdk.v1.entitlements.active_entitlements.retrieve("ent_x"),
                stripe.InvalidRequestError,
                (404, "resource_missing", "id"),
            ),
            (
                lambda sdk: sdk_list(sdk, options={"stripe_account": "acct_x"}),
                stripe.PermissionError,
                (403, "account_invalid", None),
            ),
            (
                lambda sdk: sdk_list(sdk, options={"api_key": "sk_test_wrong"}),
                stripe.AuthenticationError,
                (401, None, None),
            ),
        ],
    )
    async def test_raises_the_error_that_fits(
        self, fake: FakeStripe, curl: Curl, ask: Any, error: Any, told: Any
    ) -> None:
        """The SDK tells our refusals apart by status, code and param."""
        fake.add_customer("cus_a")
        with pytest.raises(error) as caught:
            await in_thread(curl.url, ask)
        body = caught.value.json_body["error"]
        assert (caught.value.http_status, body.get("code"), body.get("param")) == told
        assert caught.value.request_id.startswith("req_")

    @pytest.mark.parametrize(
        ("fault", "error", "status"),
        [
            (Fault.ERROR, stripe.APIError, 500),
            (Fault.THROTTLED, stripe.RateLimitError, 429),
            (Fault.LOCK_TIMEOUT, stripe.RateLimitError, 429),
            (Fault.HTML, stripe.APIError, 502),
            (Fault.NOT_JSON, stripe.APIError, 200),
            (Fault.RESET, stripe.APIConnectionError, None),
            (Fault.HALF, stripe.APIConnectionError, None),
        ],
    )
    async def test_raises_the_error_that_fits_a_fault(
        self, fake: FakeStripe, curl: Curl, fault: Fault, error: Any, status: int
    ) -> None:
        """The SDK meets each fault as the error it has for it."""
        filled(fake, 1)
        fake.break_with(fault)
        with pytest.raises(error) as caught:
            await in_thread(curl.url, sdk_list)
        assert caught.value.http_status == status


class TestRefusals:
    @pytest.mark.parametrize(
        ("path", "params", "told", "words"),
        [
            (ACTIVE, {}, (400, "parameter_missing", "customer"), "customer"),
            (ACTIVE, {"customer": ""}, (400, "parameter_invalid_empty", "customer"), "empty string"),
            (ACTIVE, {"customer": "cus_x"}, (400, "resource_missing", "customer"), "No such customer: 'cus_x'"),
            (ACTIVE, {"customer": "cus_a", "foo": "1"}, (400, "parameter_unknown", "foo"), "unknown parameter: foo"),
            (
                ACTIVE,
                {"customer": "cus_a", "limit": "ten"},
                (400, "parameter_invalid_integer", "limit"),
                "integer: ten",
            ),
            (
                ACTIVE,
                {"customer": "cus_a", "limit": "9" * 5000},
                (400, "parameter_invalid_integer", "limit"),
                "Invalid integer",
            ),
            (ACTIVE, {"customer": "cus_a", "limit": "0"}, (400, "parameter_invalid_integer", "limit"), "equal to 1 "),
            (ACTIVE, {"customer": "cus_a", "limit": "101"}, (400, "parameter_invalid_integer", "limit"), "to 100 "),
            (ACTIVE, {"customer": "cus_a", "expand[]": "data.x"}, (400, None, None), "cannot be expanded (data.x)"),
            (
                ACTIVE,
                {"customer": "cus_a", "ending_before": "ent_x"},
                (400, "resource_missing", "ending_before"),
                "ent_x",
            ),
            (
                ACTIVE,
                {"customer": "cus_a", "starting_after": "ent_x", "ending_before": "ent_y"},
                (400, "parameters_exclusive", None),
                "starting_after, ending_before",
            ),
            (f"{ACTIVE}/ent_x", {}, (404, "resource_missing", "id"), "'ent_x'"),
            (f"{FEATURES}/feat_x", {}, (404, "resource_missing", "id"), "'feat_x'"),
            (FEATURES, {"archived": "maybe"}, (400, None, "archived"), "Invalid boolean: maybe"),
            ("/v1/x", {}, (404, None, None), "Unrecognized request URL (GET: /v1/x)."),
            (f"{ACTIVE}/", {}, (404, None, None), "Unrecognized request URL"),
            ("/", {}, (404, None, None), "Unrecognized request URL"),
        ],
    )
    async def test_a_bad_question_is_answered_in_stripes_words(
        self, fake: FakeStripe, curl: Curl, path: str, params: Any, told: Any, words: str
    ) -> None:
        """Status, code, param, message, type and links are those of Stripe."""
        fake.add_customer("cus_a")
        answer = await curl(path, params=params)
        assert (answer.status, answer.error.get("code"), answer.error.get("param")) == told
        assert words in answer.error["message"]
        assert answer.error["type"] == "invalid_request_error"
        assert answer.error["request_log_url"].endswith(f"/test/logs/{answer.headers['Request-Id']}")
        assert ("doc_url" in answer.error) == ("code" in answer.error)

    @pytest.mark.parametrize(
        ("key", "words"),
        [
            (KEY, "; a similar object exists in live mode, but a test mode key was used to make this request."),
            ("sk_live_x", "; a similar object exists in test mode, but a live mode key was used to make this request."),
        ],
    )
    async def test_the_other_modes_customer_is_pointed_out(self, key: str, words: str) -> None:
        """A customer that exists under the key of the other mode is missing, with a hint."""
        fake = FakeStripe(key=key)
        fake.other_mode_customers.add("cus_o")
        async with curling(fake) as curl:
            answer = await curl(ACTIVE, params={"customer": "cus_o"}, key=key)
        assert answer.error["message"] == f"No such customer: 'cus_o'{words}"
        assert ("/test/" in answer.error["request_log_url"]) == (not fake.livemode)

    @pytest.mark.parametrize(
        ("authorization", "status"),
        [
            (f"Bearer {KEY}", 200),
            (f"bearer  {KEY} ", 200),
            (f"Basic {base64.b64encode(f'{KEY}:'.encode()).decode()}", 200),
            (f"Basic {base64.b64encode(KEY.encode()).decode()}", 200),
            ("Basic %%%", 401),
            ("Basic /w==", 401),
            (f"Digest {KEY}", 401),
            ("", 401),
            ("Bearer", 401),
            ("Bearer sk_test_secret_of_another", 401),
            ("Bearer short", 401),
        ],
    )
    async def test_the_key_comes_as_bearer_or_basic(
        self, fake: FakeStripe, curl: Curl, authorization: str, status: int
    ) -> None:
        """Both schemes carry a key; a wrong one is named only by its beginning."""
        fake.add_customer("cus_a")
        answer = await curl(ACTIVE, params={"customer": "cus_a"}, headers={"Authorization": authorization})
        assert answer.status == status
        if status == 401:
            assert answer.headers["WWW-Authenticate"].startswith("Basic")
            assert not {"secret", "short"} & set(answer.error["message"].replace("_", " ").split())

    async def test_a_wrong_key_is_told_from_none(self, curl: Curl) -> None:
        """The message masks the key, or says that there was none."""
        wrong = await curl(ACTIVE, key="sk_test_wrong")
        assert wrong.error["message"] == "Invalid API Key provided: sk_test_***"
        assert "did not provide" in (await curl(ACTIVE, key=None)).error["message"]

    async def test_a_restricted_key_needs_the_permission(self) -> None:
        """The 403 names what is missing; with it the answer comes, and writing needs another."""
        async with curling(FakeStripe(key="rk_test_demo")) as curl:
            refused = await curl(ACTIVE, key="rk_test_demo")
            assert refused.status == 403
            assert "rak_entitlement_read" in refused.error["message"]
            assert (await curl("/v1/x", key="rk_test_demo")).status == 404
        fake = FakeStripe(key="rk_test_demo", permissions=frozenset({"rak_entitlement_read"}))
        fake.add_customer("cus_a")
        async with curling(fake) as curl:
            assert (await curl(ACTIVE, key="rk_test_demo", params={"customer": "cus_a"})).status == 200
            refused = await curl(FEATURES, key="rk_test_demo", method="POST")
            assert "rak_entitlement_write" in refused.error["message"]

    async def test_every_answer_has_its_headers(self, fake: FakeStripe, curl: Curl) -> None:
        """A fresh Request-Id, the version asked for or today's, and plain JSON."""
        fake.add_customer("cus_a")
        plain, dated = await curl.held(), await curl(ACTIVE, headers={"Stripe-Version": "2020-03-02"})
        assert plain.headers["Content-Type"] == dated.headers["Content-Type"] == "application/json"
        assert plain.headers["Stripe-Version"] == "2026-10-28.endive"
        assert dated.headers["Stripe-Version"] == "2020-03-02"
        assert plain.headers["Request-Id"] != dated.headers["Request-Id"]


class TestTheSchema:
    async def test_lists_and_objects_fit(self, fake: FakeStripe, curl: Curl, check: Check) -> None:
        """Pages, entitlements and features are what Stripe's specification says they are."""
        newest = filled(fake, 3)[0]
        for params in ({}, {"limit": "2"}, {"expand[]": "data.feature"}):
            page = (await curl.held(**params)).body
            check("entitlements.active_entitlement_list", page)
            for entitlement in page["data"]:
                check("entitlements.active_entitlement", entitlement)
        check("entitlements.active_entitlement", (await curl(f"{ACTIVE}/{newest}")).body)
        features = (await curl(FEATURES)).body
        check("entitlements.feature_list", features)
        for feature in features["data"]:
            check("entitlements.feature", feature)
            check("entitlements.feature", (await curl(f"{FEATURES}/{feature['id']}")).body)

    async def test_errors_fit(self, fake: FakeStripe, curl: Curl, check: Check) -> None:
        """So are the errors, asked for or injected."""
        answers = [await curl.held("cus_x"), await curl(ACTIVE, key=None), await curl("/v1/x"), await curl(ACTIVE)]
        for fault in (Fault.ERROR, Fault.THROTTLED, Fault.LOCK_TIMEOUT):
            fake.break_with(fault)
            answers.append(await curl.held())
        for answer in answers:
            check("error", answer.body)
