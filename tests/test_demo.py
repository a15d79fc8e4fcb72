"""The built-in Stripe, asked by the official SDK, by plain HTTP, and compared with Stripe's schema."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import jsonschema  # type: ignore[import-untyped]
import pytest
import stripe

from sidecar.demo import FakeStripe, Fault, Seen, serving

stripe.enable_telemetry = False  # it would write a file into the user's configuration

T = TypeVar("T")
Check = Callable[[str, Any], None]

KEY = "sk_test_demo"
ACTIVE = "/v1/entitlements/active_entitlements"
FEATURES = "/v1/entitlements/features"
LENGTHS = [0, 1, 9, 10, 11, 99, 100, 101, 250]
SCHEMA = Path(__file__).resolve().parents[2] / "shared" / "reference" / "stripe-entitlements.schema.json"


@dataclass
class Answer:
    status: int
    headers: Any
    body: Any

    @property
    def error(self) -> Any:
        return self.body["error"]

    @property
    def keys(self) -> list[str]:
        return [item["lookup_key"] for item in self.body["data"]]


class Curl:
    """Plain HTTP with the right key, unless told otherwise."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session, self.url = session, url

    async def __call__(self, path: str, *, method: str = "GET", key: str | None = KEY, **options: Any) -> Answer:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        headers |= options.pop("headers", {})
        async with self.session.request(method, self.url + path, headers=headers, **options) as response:
            text = await response.text()
            body = json.loads(text) if response.content_type == "application/json" else text
            return Answer(response.status, response.headers, body)

    async def held(self, customer: str = "cus_a", **params: str) -> Answer:
        return await self(ACTIVE, params={"customer": customer, **params})


@asynccontextmanager
async def curling(fake: FakeStripe) -> AsyncIterator[Curl]:
    timeout = aiohttp.ClientTimeout(total=5)
    async with serving(fake) as url, aiohttp.ClientSession(timeout=timeout) as session:
        yield Curl(session, url)


@pytest.fixture
def fake() -> FakeStripe:
    return FakeStripe(key=KEY)


@pytest.fixture
async def curl(fake: FakeStripe) -> AsyncIterator[Curl]:
    async with curling(fake) as curl:
        yield curl


async def in_thread(url: str, ask: Callable[[stripe.StripeClient], T], key: str = KEY) -> T:
    """Ask through the synchronous SDK, which keeps its connections per thread."""

    def asked() -> T:
        http = stripe.RequestsClient()
        try:
            return ask(stripe.StripeClient(key, base_addresses={"api": url}, http_client=http, max_network_retries=0))
        finally:
            http.close()

    return await asyncio.to_thread(asked)


def aio(curl: Curl, key: str = KEY) -> stripe.StripeClient:
    """Make the asynchronous SDK, on the session of the test."""
    http = stripe.AIOHTTPClient(session=curl.session)
    return stripe.StripeClient(key, base_addresses={"api": curl.url}, http_client=http, max_network_retries=0)


def filled(fake: FakeStripe, count: int, customer: str = "cus_a") -> list[str]:
    """Grant so many entitlements and give their ids, newest first."""
    fake.add_customer(customer)
    return [fake.grant(customer, f"feature-{number:03}") for number in range(count)][::-1]


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

    async def test_keeps_a_catalogue_of_features(self, fake: FakeStripe, curl: Curl) -> None:
        """Features are created, renamed, noted upon, archived and read back through the SDK."""
        service = aio(curl).v1.entitlements.features
        made = await service.create_async({"lookup_key": "sso", "name": "Sign-on", "metadata": {"tier": "gold"}})
        assert (made.lookup_key, made.name, made.active) == ("sso", "Sign-on", True)
        assert made.metadata.to_dict() == {"tier": "gold"}
        changed = await service.update_async(
            made.id, {"name": "Single sign-on", "active": False, "metadata": {"tier": "", "owner": "ann"}}
        )
        assert (changed.name, changed.active) == ("Single sign-on", False)
        assert changed.metadata.to_dict() == {"owner": "ann"}
        assert (await service.retrieve_async(made.id)).name == "Single sign-on"
        assert (await service.list_async()).data == []
        assert [f.id for f in (await service.list_async({"archived": True})).data] == [made.id]

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


def sdk_list(sdk: stripe.StripeClient, customer: str = "cus_a", options: Any = None, **params: Any) -> Any:
    asked: Any = {"customer": customer, **params}
    return sdk.v1.entitlements.active_entitlements.list(asked, options)


class TestState:
    def test_ids_look_like_stripes(self, fake: FakeStripe) -> None:
        """Forty-one characters, all different, with the mode in them."""
        ids = filled(fake, 300)
        assert len(set(ids)) == 300
        assert {len(id_) for id_ in ids} == {41}
        assert all(id_.startswith("ent_test_61") and id_.rpartition("_")[2].isalnum() for id_ in ids)
        assert FakeStripe(key="sk_live_x").grant("cus_a", "sso").startswith("ent_61")

    def test_granting_twice_is_granting_once(self, fake: FakeStripe) -> None:
        """The second grant gives the id of the first."""
        fake.grant("cus_a", "other")
        assert fake.grant("cus_a", "sso") == fake.grant("cus_a", "sso")
        assert fake.held("cus_a") == ["sso", "other"]

    async def test_one_key_can_be_held_twice(self, fake: FakeStripe, curl: Curl) -> None:
        """A new feature under a used key archives the old one; who held both loses both at once."""
        first = fake.grant("cus_a", "sso")
        second = fake.grant("cus_a", "sso", new_feature=True)
        assert fake.held("cus_a") == ["sso", "sso"]
        page = (await curl.held()).body["data"]
        assert [e["id"] for e in page] == [second, first]
        assert page[0]["feature"] != page[1]["feature"]
        assert [(await curl(FEATURES, params={"archived": a})).keys for a in ("true", "false")] == [["sso"], ["sso"]]
        assert fake.revoke("cus_a", "sso") == 2
        assert fake.held("cus_a") == []

    def test_customers_share_a_feature_but_no_entitlement(self, fake: FakeStripe) -> None:
        """Revoking from one leaves the other alone."""
        assert fake.grant("cus_a", "sso") != fake.grant("cus_b", "sso")
        assert fake.revoke("cus_a", "sso") == 1
        assert fake.held("cus_b") == ["sso"]

    def test_strangers_hold_nothing(self, fake: FakeStripe) -> None:
        """Asking about or taking from someone unknown is no error."""
        assert fake.held("cus_x") == fake.held("cus_x", account="acct_x") == []
        assert fake.revoke("cus_x", "sso") == fake.revoke("cus_x", "sso", account="acct_x") == 0
        fake.delete_customer("cus_x", account="acct_x")

    async def test_accounts_have_customers_of_their_own(self, fake: FakeStripe, curl: Curl) -> None:
        """One customer id means two customers in two accounts."""
        fake.grant("cus_a", "ours")
        fake.grant("cus_a", "theirs", account="acct_1")
        assert (await curl.held()).keys == ["ours"]
        connected = await curl(ACTIVE, params={"customer": "cus_a"}, headers={"Stripe-Account": "acct_1"})
        assert connected.keys == fake.held("cus_a", account="acct_1") == ["theirs"]
        assert [seen.account for seen in fake.requests] == [None, "acct_1"]

    async def test_a_deleted_customer_is_unknown(self, fake: FakeStripe, curl: Curl) -> None:
        """After deletion the customer is missing, not empty."""
        fake.grant("cus_a", "sso")
        fake.delete_customer("cus_a")
        assert (await curl.held()).error["code"] == "resource_missing"
        fake.add_customer("cus_a")
        assert (await curl.held()).body["data"] == []

    async def test_state_outlives_the_server(self, fake: FakeStripe) -> None:
        """Stripe goes away and comes back on the same port, knowing what it knew."""
        fake.grant("cus_a", "sso")
        async with aiohttp.ClientSession() as session:
            async with serving(fake) as url:
                assert (await Curl(session, url).held()).keys == ["sso"]
            with pytest.raises(aiohttp.ClientConnectorError):
                await Curl(session, url).held()
            async with serving(fake, port=int(url.rpartition(":")[2])) as again:
                assert again == url
                assert (await Curl(session, url).held()).keys == ["sso"]


class TestPages:
    async def test_the_envelope_is_stripes(self, fake: FakeStripe, curl: Curl) -> None:
        """A list says what it is, where it is from and whether there is more; ten unless asked otherwise."""
        filled(fake, 11)
        answer = await curl.held()
        assert {name: value for name, value in answer.body.items() if name != "data"} == {
            "object": "list",
            "has_more": True,
            "url": ACTIVE,
        }
        assert len(answer.body["data"]) == 10
        assert answer.keys == fake.held("cus_a")[:10]

    async def test_has_more_is_exact(self, fake: FakeStripe, curl: Curl) -> None:
        """A page that ends with the list says so, in both directions."""
        ids = filled(fake, 4)
        assert not (await curl.held(limit="4")).body["has_more"]
        assert (await curl.held(limit="3")).body["has_more"]
        assert not (await curl.held(limit="2", starting_after=ids[1])).body["has_more"]
        assert not (await curl.held(limit="2", ending_before=ids[2])).body["has_more"]
        nearest = await curl.held(limit="2", ending_before=ids[3])
        assert [e["id"] for e in nearest.body["data"]] == ids[1:3]
        assert nearest.body["has_more"]

    @pytest.mark.parametrize("name", ["expand[]", "expand[0]", "expand"])
    async def test_expand_is_spelt_in_several_ways(self, fake: FakeStripe, curl: Curl, name: str) -> None:
        """Whatever way it is asked for, the feature comes inlined."""
        fake.grant("cus_a", "sso")
        (entitlement,) = (await curl.held(**{name: "data.feature"})).body["data"]
        assert (await curl(f"{FEATURES}/{entitlement['feature']['id']}")).body == entitlement["feature"]
        assert (await curl(f"{ACTIVE}/{entitlement['id']}", params={name: "feature"})).body == entitlement

    async def test_features_are_filtered_by_key(self, fake: FakeStripe, curl: Curl) -> None:
        """The list of features takes a key and cursors."""
        filled(fake, 3)
        assert (await curl(FEATURES, params={"lookup_key": "feature-001"})).keys == ["feature-001"]
        first = await curl(FEATURES, params={"limit": "1"})
        rest = await curl(FEATURES, params={"starting_after": first.body["data"][0]["id"]})
        assert first.keys + rest.keys == fake.held("cus_a")
        assert rest.body["url"] == FEATURES

    async def test_a_cursor_can_vanish_between_pages(self, fake: FakeStripe, curl: Curl) -> None:
        """What is revoked between two pages makes the next page fail, not lie."""
        ids = filled(fake, 3)

        def between(seen: Seen) -> None:
            if "starting_after" in seen.query:
                fake.revoke("cus_a", fake.held("cus_a")[1])

        fake.on_request = between
        await curl.held(limit="2")
        answer = await curl.held(limit="2", starting_after=ids[1])
        assert answer.status == 400
        assert (answer.error["code"], answer.error["param"]) == ("resource_missing", "starting_after")


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

    async def test_a_key_of_two_features_is_refused(self, fake: FakeStripe, curl: Curl) -> None:
        """Only one active feature may have a key, whether created or taken out of the archive."""
        sso = {"lookup_key": "sso", "name": "Sign-on"}
        first = (await curl(FEATURES, method="POST", data=sso)).body["id"]
        taken = await curl(FEATURES, method="POST", data=sso)
        assert taken.error["code"] == "resource_already_exists"
        await curl(f"{FEATURES}/{first}", method="POST", data={"active": "false"})
        second = (await curl(FEATURES, method="POST", data=sso)).body["id"]
        assert second != first
        back = await curl(f"{FEATURES}/{first}", method="POST", data={"active": "true"})
        assert back.error["code"] == "resource_already_exists"
        assert (await curl(f"{FEATURES}/{second}", method="POST", data={"active": "true"})).body["active"]
        missing = await curl(FEATURES, method="POST", data={"lookup_key": "x"})
        assert (missing.error["code"], missing.error["param"]) == ("parameter_missing", "name")

    async def test_every_answer_has_its_headers(self, fake: FakeStripe, curl: Curl) -> None:
        """A fresh Request-Id, the version asked for or today's, and plain JSON."""
        fake.add_customer("cus_a")
        plain, dated = await curl.held(), await curl(ACTIVE, headers={"Stripe-Version": "2020-03-02"})
        assert plain.headers["Content-Type"] == dated.headers["Content-Type"] == "application/json"
        assert plain.headers["Stripe-Version"] == "2026-10-28.endive"
        assert dated.headers["Stripe-Version"] == "2020-03-02"
        assert plain.headers["Request-Id"] != dated.headers["Request-Id"]


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

    async def test_closing_does_not_wait_for_what_hangs(self, fake: FakeStripe) -> None:
        """A server with a hanging request and an idle connection is gone at once."""
        fake.add_customer("cus_a")
        loop = asyncio.get_running_loop()
        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
            async with serving(fake) as url:
                await Curl(session, url).held()
                fake.break_with(Fault.HANG)
                task = group.create_task(refused(Curl(session, url)))
                await arrived(fake, 2)
                start = loop.time()
            assert loop.time() - start < 1
            assert await task

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


async def raw(url: str) -> tuple[str, bytes]:
    """Ask without a library and read until the connection ends."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    request = (
        f"GET {ACTIVE}?customer=cus_a HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nConnection: close\r\n\r\n"
    )
    writer.write(request.encode())
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.decode(), body


async def arrived(fake: FakeStripe, count: int = 1) -> None:
    while fake.count() < count:
        await asyncio.sleep(0.001)


async def refused(curl: Curl) -> bool:
    try:
        await curl.held()
    except aiohttp.ClientError:
        return True
    return False


class TestTheRecord:
    async def test_every_request_is_remembered(self, fake: FakeStripe, curl: Curl) -> None:
        """What was asked, when, and what became of it; the key is not shown."""
        fake.clock = lambda: 42.0
        await curl.held("cus_x", limit="3")
        (seen,) = fake.requests
        assert (seen.method, seen.path, dict(seen.query)) == ("GET", ACTIVE, {"customer": "cus_x", "limit": "3"})
        assert (seen.account, seen.status, seen.at) == (None, 400, 42.0)
        assert seen.headers["Authorization"] == f"Bearer {KEY}"
        assert KEY not in repr(seen)

    async def test_operations_have_names(self, fake: FakeStripe, curl: Curl) -> None:
        """Each call is counted under its own name, and everything else under one."""
        ent = fake.grant("cus_a", "sso")
        feature = (await curl(f"{ACTIVE}/{ent}")).body["feature"]
        for method, path in [
            ("GET", ACTIVE),
            ("GET", FEATURES),
            ("GET", f"{FEATURES}/{feature}"),
            ("POST", FEATURES),
            ("POST", f"{FEATURES}/{feature}"),
            ("GET", "/v1/customers"),
            ("DELETE", f"{FEATURES}/{feature}"),
        ]:
            await curl(path, method=method)
        names = ["retrieve", "list", "features", "feature", "create_feature", "update_feature", "unknown", "unknown"]
        assert [seen.operation for seen in fake.requests] == names
        assert (fake.count(), fake.count("list"), fake.count("unknown")) == (8, 1, 2)

    async def test_the_watcher_sees_a_request_before_its_answer(self, fake: FakeStripe, curl: Curl) -> None:
        """What the watcher changes is in the answer already."""
        fake.on_request = lambda seen: fake.add_customer(seen.query["customer"])
        assert (await curl.held("cus_new")).status == 200


class TestRemoteControl:
    async def test_state_is_changed_and_shown(self, fake: FakeStripe, curl: Curl) -> None:
        """Grant and revoke by hand, keyless, with any lookup key; every answer shows how things stand."""
        await curl("/demo/grant/cus_a/a%2Fb", method="POST", key=None)
        shown = await curl("/demo/grant/cus_a/sso", method="POST", key=None)
        assert shown.body == {"customers": {"cus_a": ["sso", "a/b"]}, "fault": None, "requests": {}}
        await curl("/demo/revoke/cus_a/sso", method="POST", key=None)
        assert (await curl("/demo", key=None)).body["customers"] == {"cus_a": ["a/b"]} == {"cus_a": fake.held("cus_a")}

    async def test_faults_are_switched_and_never_strike_here(self, fake: FakeStripe, curl: Curl) -> None:
        """Every fault can be named; the remote control itself goes on working and is not counted."""
        fake.add_customer("cus_a")
        for fault in Fault:
            assert (await curl(f"/demo/break/{fault}", method="POST", key=None)).body["fault"] == fault
        assert fake.count() == 0
        await curl("/demo/break/error", method="POST")
        assert (await curl.held()).status == 500
        assert (await curl("/demo")).body["requests"] == {"list": 1}
        assert (await curl("/demo/mend", method="POST")).body["fault"] is None
        assert (await curl.held()).status == 200

    @pytest.mark.parametrize(
        ("method", "path"), [("POST", "/demo/break/legs"), ("GET", "/demo/mend"), ("GET", "/demo/")]
    )
    async def test_an_unknown_wish_is_told_what_there_is(
        self, fake: FakeStripe, curl: Curl, method: str, path: str
    ) -> None:
        """404, with the names of the faults."""
        answer = await curl(path, method=method, key=None)
        assert answer.status == 404
        assert answer.body["faults"] == list(Fault)
        assert fake.count() == 0


@pytest.fixture
def check() -> Check:
    if not SCHEMA.exists():
        pytest.skip("Stripe's schema is kept outside the repository and is not here")
    defs = json.loads(SCHEMA.read_text())["$defs"]

    def check(name: str, instance: Any) -> None:
        jsonschema.Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": defs}).validate(instance)

    return check


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
