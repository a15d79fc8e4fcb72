"""The events list: to the official SDK, to plain HTTP, and compared with Stripe's schema and examples."""

import json
from typing import Any

import pytest
import stripe

from sidecar.demo import FakeStripe, Fault
from sidecar.demo.events import KEPT, Events, notification, snapshot
from tests.demo.asking import EVENTS, KEY, Check, Curl, aio, curling, filled, in_thread
from tests.demo.conftest import SCHEMA
from tests.fakes import FakeClock

UPDATED = "entitlements.active_entitlement_summary.updated"
FIXTURES = SCHEMA.with_name("stripe-entitlements.fixtures.json")
START = 1_790_000_000


@pytest.fixture
def fake(clock: FakeClock) -> FakeStripe:
    return FakeStripe(key=KEY, now=clock)


async def listed(curl: Curl, query: str = "", **options: Any) -> list[str]:
    """List what came of which customer, newest first."""
    answer = await curl(f"{EVENTS}?{query}", **options)
    assert answer.status == 200, answer.body
    return [event["data"]["object"].get("customer") or event["type"] for event in answer.body["data"]]


def happened(fake: FakeStripe, clock: FakeClock, count: int) -> list[str]:
    """Let so many events happen, one a second, and give their ids, newest first."""
    ids = []
    for number in range(count):
        ids.append(fake.emit(UPDATED, {"customer": f"cus_{number}"})["id"])
        clock.advance(1)
    return ids[::-1]


class TestTheSdk:
    async def test_pages_through_a_window_in_a_thread(self, fake: FakeStripe, curl: Curl, clock: FakeClock) -> None:
        """Of 270 events the synchronous SDK collects the 250 of the window, in three requests."""
        ids = happened(fake, clock, 270)
        window: Any = {"limit": 100, "type": UPDATED, "created": {"gte": START + 10, "lt": START + 260}}
        got = await in_thread(
            curl.url, lambda sdk: [event.id for event in sdk.v1.events.list(window).auto_paging_iter()]
        )
        assert got == ids[10:260]
        assert fake.count("events") == fake.count() == 3

    async def test_pages_on_the_loop_from_an_event_onwards(
        self, fake: FakeStripe, curl: Curl, clock: FakeClock
    ) -> None:
        """The asynchronous SDK collects what is newer than a known event, oldest first."""
        *newer, known = happened(fake, clock, 26)
        page = await aio(curl).v1.events.list_async({"limit": 7, "ending_before": known})
        assert [event.id async for event in page.auto_paging_iter()] == newer[::-1]

    async def test_filters_by_types(self, fake: FakeStripe, curl: Curl) -> None:
        """The SDK's way to write a list is understood, and its way to write a boolean."""
        for type_ in ("a.b", "a.c", "b.c"):
            fake.emit(type_, {})
        page = await aio(curl).v1.events.list_async({"types": ["a.b", "b.c"], "delivery_success": True})
        assert [event.type for event in page.data] == ["b.c", "a.b"]

    async def test_retrieves_one(self, fake: FakeStripe, curl: Curl) -> None:
        """An event by its id, with the customer in it."""
        fake.grant("cus_a", "sso")
        (listed,) = (await curl(EVENTS)).body["data"]
        event = await in_thread(curl.url, lambda sdk: sdk.v1.events.retrieve(listed["id"]))
        assert isinstance(event, stripe.Event)
        assert event.to_dict() == listed
        assert event.data.object["customer"] == "cus_a"
        assert fake.count("event") == 1


class TestTheList:
    async def test_the_envelope_is_stripes(self, fake: FakeStripe, curl: Curl, clock: FakeClock) -> None:
        """Newest first, ten unless asked otherwise, under its own address."""
        ids = happened(fake, clock, 11)
        page = (await curl(EVENTS)).body
        assert [event["id"] for event in page.pop("data")] == ids[:10]
        assert page == {"object": "list", "has_more": True, "url": EVENTS}

    @pytest.mark.parametrize(
        ("query", "customers"),
        [
            ("created=1790000002", ["cus_2"]),
            ("created[gt]=1790000002", ["cus_4", "cus_3"]),
            ("created[gte]=1790000003", ["cus_4", "cus_3"]),
            ("created[lt]=1790000002", ["cus_1", "cus_0"]),
            ("created[lte]=1790000001", ["cus_1", "cus_0"]),
            ("created[gt]=1790000000&created[lt]=1790000003", ["cus_2", "cus_1"]),
            ("created[gt]=-1&limit=1", ["cus_4"]),
        ],
    )
    async def test_time_is_a_filter(
        self, fake: FakeStripe, curl: Curl, clock: FakeClock, query: str, customers: list[str]
    ) -> None:
        """A second, or bounds that are met or not."""
        happened(fake, clock, 5)
        assert await listed(curl, query) == customers

    @pytest.mark.parametrize(
        ("query", "types"),
        [
            ("type=customer.updated", ["customer.updated"]),
            ("type=customer.*", ["customer.updated", "customer.subscription.updated"]),
            ("type=*.updated", ["customer.updated", "customer.subscription.updated"]),
            ("type=c*n.*ed", ["customer.subscription.updated"]),
            ("type=customer", []),
            ("type=.*", []),
            ("types[]=invoice.paid&types[]=customer.updated", ["invoice.paid", "customer.updated"]),
            ("types[1]=invoice.paid&types[0]=customer.updated", ["invoice.paid", "customer.updated"]),
            ("types[]=customer.*", []),
        ],
    )
    async def test_the_type_is_a_filter(self, fake: FakeStripe, curl: Curl, query: str, types: list[str]) -> None:
        """One name, where an asterisk stands for anything, or several that are exact."""
        for type_ in ("customer.subscription.updated", "customer.updated", "invoice.paid"):
            fake.emit(type_, {})
        assert await listed(curl, query) == types

    async def test_a_cursor_need_not_match(self, fake: FakeStripe, curl: Curl, clock: FakeClock) -> None:
        """The place of an event that the filter leaves out is a place all the same."""
        ids = happened(fake, clock, 5)
        assert await listed(curl, f"created[gt]=1790000002&ending_before={ids[4]}") == ["cus_4", "cus_3"]
        assert await listed(curl, f"created[lt]=1790000002&starting_after={ids[0]}") == ["cus_1", "cus_0"]

    async def test_nothing_is_older_than_thirty_days(self, fake: FakeStripe, curl: Curl, clock: FakeClock) -> None:
        """After that an event is in no list, under no id, and no place to page from."""
        old = fake.emit("a.b", {})["id"]
        clock.advance(KEPT)
        assert await listed(curl) == ["a.b"]
        assert (await curl(f"{EVENTS}/{old}")).status == 200
        clock.advance(1)
        assert await listed(curl) == []
        gone = await curl(f"{EVENTS}/{old}")
        assert (gone.status, gone.error["code"], gone.error["message"]) == (
            404,
            "resource_missing",
            f"No such event: '{old}'",
        )
        assert (await curl(f"{EVENTS}?starting_after={old}")).error["param"] == "starting_after"

    def test_memory_is_given_back(self) -> None:
        """What is too old to show is dropped when something new happens."""
        events = Events()
        for at in (0.0, 1.0, KEPT, KEPT + 1):
            events.add(snapshot(f"evt_{at}", "a.b", {}, at=at, livemode=False), at)
        assert len(events) == 3

    async def test_a_change_can_show_late(self, fake: FakeStripe, curl: Curl, clock: FakeClock) -> None:
        """Until then the list is silent, though the event can be had by its id; the delay may change meanwhile."""
        fake.visible_after = 2.5
        event = fake.emit("a.b", {})["id"]
        clock.advance(2)
        assert await listed(curl) == []
        assert (await curl(f"{EVENTS}/{event}")).body["id"] == event
        clock.advance(0.5)
        assert await listed(curl) == ["a.b"]
        fake.visible_after = 3
        assert await listed(curl) == []
        fake.visible_after = 0
        assert await listed(curl) == ["a.b"]

    async def test_accounts_are_apart(self, fake: FakeStripe, curl: Curl) -> None:
        """The own list shows nothing of a connected account, nor that one of another."""
        fake.grant("cus_a", "sso")
        theirs = fake.emit("a.b", {}, account="acct_1")["id"]
        assert await listed(curl) == ["cus_a"]
        assert await listed(curl, headers={"Stripe-Account": "acct_1"}) == ["a.b"]
        assert (await curl(f"{EVENTS}/{theirs}")).status == 404
        assert (await curl(f"{EVENTS}/{theirs}", headers={"Stripe-Account": "acct_1"})).body["account"] == "acct_1"
        assert (await curl(EVENTS, headers={"Stripe-Account": "acct_x"})).status == 403

    async def test_a_restricted_key_needs_the_permission(self, fake: FakeStripe) -> None:
        """Another one than for entitlements, for the list and for one event."""
        fake.key, fake.permissions = "rk_test_demo", frozenset({"rak_entitlement_read"})
        async with curling(fake) as curl:
            for path in (EVENTS, f"{EVENTS}/evt_x"):
                answer = await curl(path, key=fake.key)
                assert answer.status == 403
                assert "'rak_event_read'" in answer.error["message"]
            fake.permissions = frozenset({"rak_event_read"})
            assert (await curl(EVENTS, key=fake.key)).status == 200

    async def test_faults_find_it_by_name(self, fake: FakeStripe, curl: Curl) -> None:
        """The feed can be broken alone, and so can single events."""
        event = fake.emit("a.b", {})["id"]
        fake.break_with(Fault.ERROR, operation="events")
        assert [(await curl(path)).status for path in (EVENTS, f"{EVENTS}/{event}")] == [500, 200]
        fake.break_with(Fault.ERROR, operation="event")
        assert [(await curl(path)).status for path in (EVENTS, f"{EVENTS}/{event}")] == [200, 500]

    @pytest.mark.parametrize(
        ("query", "told", "words"),
        [
            ("type=a&types[]=b", ("parameters_exclusive", None), "type, types"),
            ("types=a", (None, "types"), "Invalid array"),
            ("&".join(f"types[]=a.{number}" for number in range(21)), (None, "types"), "up to 20"),
            ("type=", ("parameter_invalid_empty", "type"), "empty string"),
            ("created=soon", ("parameter_invalid_integer", "created"), "Invalid integer: soon"),
            ("created[gt]=1.5", ("parameter_invalid_integer", "created[gt]"), "Invalid integer: 1.5"),
            ("created[after]=1", ("parameter_unknown", "created[after]"), "unknown parameter: created[after]"),
            ("delivery_success=maybe", (None, "delivery_success"), "Invalid boolean: maybe"),
            ("starting_after=evt_x", ("resource_missing", "starting_after"), "No such event: 'evt_x'"),
            ("limit=101", ("parameter_invalid_integer", "limit"), "less than or equal to 100"),
            ("customer=cus_a", ("parameter_unknown", "customer"), "unknown parameter: customer"),
            ("expand[]=data.object", (None, None), "cannot be expanded"),
        ],
    )
    async def test_a_bad_question_is_refused(self, curl: Curl, query: str, told: Any, words: str) -> None:
        """400, with the code and the parameter that Stripe would name."""
        answer = await curl(f"{EVENTS}?{query}")
        assert (answer.status, answer.error.get("code"), answer.error.get("param")) == (400, *told)
        assert words in answer.error["message"]


class TestTheSchema:
    async def test_events_fit(self, fake: FakeStripe, curl: Curl, check: Check) -> None:
        """First, eleventh, last, of a connected account: all are what Stripe's specification says."""
        filled(fake, 12)
        fake.delete_customer("cus_a")
        fake.grant("cus_a", "sso", account="acct_1")
        own = (await curl(EVENTS, params={"limit": "100"})).body
        connected = (await curl(EVENTS, headers={"Stripe-Account": "acct_1"})).body
        for page, count in ((own, 13), (connected, 1)):
            check("event_list", page)
            assert len(page["data"]) == count
            for event in page["data"]:
                check(f"event.{UPDATED}", event)
                check(f"event.{UPDATED}", (await curl(f"{EVENTS}/{event['id']}")).body if page is own else event)

    def test_thin_events_fit(self, check: Check) -> None:
        """So are notifications of version two."""
        check("v2.core.event", notification("evt_1", f"v1.{UPDATED}", at=START + 0.5, livemode=False))

    def test_events_are_shaped_like_stripes_examples(self, fake: FakeStripe, clock: FakeClock) -> None:
        """Every member of the examples is there, no other, and whatever is constant has their value."""
        if not FIXTURES.exists():
            pytest.skip("Stripe's examples are kept outside the repository and are not here")
        examples = json.loads(FIXTURES.read_text())["constructed"]
        fake.grant("cus_test_A", "advanced-reporting")
        (event,) = fake.accounts[None].events.known(clock.now).values()
        assert shape(event) == shape(examples["event_grant"])
        thin = notification("evt_test_thin_1", f"v1.{UPDATED}", at=1793527200.0, livemode=False)
        assert thin == examples["thin_notification_updated"]


def shape(value: Any) -> Any:
    """Keep what is the same in every event about this customer and its last entitlement."""
    if isinstance(value, dict):
        variable = {"id", "created", "feature", "pending_webhooks"}
        return {name: type(item) if name in variable else shape(item) for name, item in value.items()}
    return [shape(item) for item in value][-1:] if isinstance(value, list) else value
