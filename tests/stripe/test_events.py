"""An event names a customer or it is an error; a sweep is read whole or not at all."""

import copy
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import Broken, Untold
from sidecar.model import Customer
from sidecar.stripe.events import EVENTS_PATH, NEWS, Event, Sweep, read_event

FIXTURES = Path(__file__).resolve().parents[3] / "shared" / "reference" / "stripe-entitlements.fixtures.json"
SINCE = 1_790_000_000.75

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def event(number: int, **changes: Any) -> dict[str, Any]:
    """Make news as Stripe says it; a change to None takes the field away."""
    summary = {
        "object": "entitlements.active_entitlement_summary",
        "customer": f"cus_{number:04}",
        "entitlements": {"object": "list", "data": [], "has_more": False, "url": "/v1/customer/x/entitlements"},
        "livemode": False,
    }
    item = {
        "id": f"evt_{number:04}",
        "object": "event",
        "api_version": "2026-10-28.endive",
        "created": 1_790_000_000 + number,
        "data": {"object": summary, "previous_attributes": {"entitlements": {"data": []}}},
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None},
        "type": NEWS,
    }
    return {name: value for name, value in (item | changes).items() if value is not None}


def about(customer: object, **changes: Any) -> dict[str, Any]:
    """Make news of ``customer``, who may be anything."""
    return event(1, data={"object": {"customer": customer}}, **changes)


def page_of(items: Sequence[Any], *, has_more: bool = False, url: str = EVENTS_PATH) -> dict[str, Any]:
    return {"object": "list", "data": list(items), "has_more": has_more, "url": url}


def pages_of(items: Sequence[Any], size: int) -> list[dict[str, Any]]:
    """Cut a list into pages; an empty list is one page."""
    starts = range(0, max(1, len(items)), size)
    return [page_of(items[start : start + size], has_more=start + size < len(items)) for start in starts]


def sweep(*, account: str | None = None, livemode: bool = False, max_pages: int = 1000) -> Sweep:
    return Sweep(SINCE, livemode=livemode, account=account, max_pages=max_pages)


def swept(pages: Iterable[dict[str, Any]], found: Sweep | None = None) -> list[Event]:
    """Take pages until the sweep is complete; there must not be too few or too many of them."""
    found, events, rest = found or sweep(), [], iter(pages)
    while not found.is_complete:
        events += found.take(next(rest))
    assert next(rest, None) is None
    return events


class TestAnEvent:
    def test_names_a_customer_and_a_moment(self) -> None:
        """Of news, id, time, mode and customer are read."""
        assert read_event(event(7)) == Event(
            "evt_0007", NEWS, 1_790_000_007.0, livemode=False, customer=Customer("cus_0007")
        )

    @pytest.mark.parametrize("field", ["api_version", "request", "pending_webhooks"])
    def test_may_lack_what_older_versions_lack(self, field: str) -> None:
        """The public specification requires less than the SDKs' does."""
        assert read_event(event(1, **{field: None})) == read_event(event(1))

    def test_is_not_asked_what_the_entitlements_are(self) -> None:
        """Its own list is cut at ten and may be old: nothing in it can spoil or change what is read."""
        item = event(1)
        item["data"] = {"object": {"customer": "cus_0001", "entitlements": "no list"}, "previous_attributes": 3}
        assert read_event(item) == read_event(event(1))

    def test_may_have_its_customer_expanded(self) -> None:
        """An expanded customer is an object; its id is what counts."""
        assert read_event(about({"id": "cus_1", "object": "customer"})).customer == Customer("cus_1")

    @pytest.mark.parametrize(
        ("fields", "account"),
        [
            ({}, None),
            ({"account": "acct_1"}, "acct_1"),
            ({"context": "acct_2"}, None),
            ({"account": "acct_1", "context": "acct_2"}, "acct_1"),
            ({"context": "org_1/acct_2"}, None),
            ({"context": "acct_1/"}, None),
            ({"context": "acct_1/org_2"}, None),
            ({"context": "org_1"}, None),
            ({"context": {"id": "acct_1"}}, None),
        ],
    )
    def test_is_of_the_account_that_it_names(self, fields: dict[str, Any], account: str | None) -> None:
        """A customer is one of a connected account's, or of the account that an organisation's context ends in."""
        assert read_event(about("cus_1", **fields)).customer == Customer("cus_1", account)

    @pytest.mark.parametrize("account", ["", "acct_", "cus_1", "acct_1/acct_2", "acct_1\r\nX: y", 1, ["acct_1"]])
    def test_with_an_account_that_is_none_is_no_news(self, account: object) -> None:
        """The customer of the same id in our own account is somebody else."""
        with pytest.raises(Broken, match="an account that is none") as caught:
            read_event(about("cus_1", account=account))
        assert not caught.value.retry

    @pytest.mark.parametrize("type_", ["customer.updated", "entitlements.active_entitlement_summary", "x"])
    def test_of_another_type_names_nobody(self, type_: str) -> None:
        """Whatever it is about is not read."""
        item = about(["nobody"], type=type_, account=7)
        assert read_event(item) == Event("evt_0001", type_, 1_790_000_001.0, livemode=False, customer=None)

    @pytest.mark.parametrize(
        "item", [None, "evt_1", 1, [], {}, event(1, object=None), event(1, object="v2.core.event")]
    )
    def test_is_an_object_that_says_so(self, item: object) -> None:
        """Anything else is an error."""
        with pytest.raises(Broken, match="not an event") as caught:
            read_event(item)
        assert not caught.value.retry

    @pytest.mark.parametrize(
        ("field", "values"),
        [
            ("id", [None, "", 1, ["evt_1"], {}]),
            ("type", [None, "", 1, [NEWS]]),
            ("created", [None, "1790000000", 1.5, True, [], "2026-11-01T10:00:00.000Z"]),
            ("livemode", [None, 0, 1, "false"]),
        ],
    )
    def test_without_what_every_event_has_is_an_error(self, field: str, values: list[object]) -> None:
        """What is missing is named."""
        for value in values:
            with pytest.raises(Broken, match=rf"an event without .*\b{field}\b") as caught:
                read_event(event(1, **{field: value}))
            assert not caught.value.retry

    @pytest.mark.parametrize(
        "customer",
        [None, "", 1, True, [], {}, {"id": None}, {"id": {"id": "cus_1"}}],
    )
    def test_that_is_news_of_nobody_is_an_error(self, customer: object) -> None:
        """What is no id is never asked about."""
        with pytest.raises(Broken, match=r"news without data\.object\.customer") as caught:
            read_event(about(customer))
        assert not caught.value.retry

    @pytest.mark.parametrize("customer", ["cus_1\n", "cüs", "a/b", "c" * 256, "imported-42@example"])
    def test_that_is_news_of_somebody_nobody_can_ask_about_concerns_nobody(self, customer: str) -> None:
        """Such an id is refused in every question, so there is nothing to read again."""
        assert read_event(about(customer)).customer is None

    @pytest.mark.parametrize("data", [None, [], "x", {}, {"object": None}, {"object": []}, {"object": "cus_1"}])
    def test_that_is_news_without_a_summary_is_an_error(self, data: object) -> None:
        """However much of the way to the customer is missing."""
        with pytest.raises(Broken, match=r"news without data\.object\.customer"):
            read_event(event(1, data=data))

    @given(name=st.sampled_from(sorted(event(1))), value=JSON)
    def test_fails_in_one_way_only(self, name: str, value: object) -> None:
        """Whatever one of its fields is, it is read or it is broken."""
        try:
            found = read_event(event(1) | {name: value})
        except Broken:
            return
        assert (found.customer is None) == (found.type != NEWS)

    @pytest.mark.skipif(not FIXTURES.is_file(), reason="the fixtures are not on this machine")
    def test_is_read_from_what_stripe_sends(self) -> None:
        """Granted, all revoked, cut at ten: each is news of its customer."""
        said = orjson.loads(FIXTURES.read_bytes())["constructed"]
        events = {name: read_event(item) for name, item in said.items() if name.startswith("event_")}
        assert {
            name: (found.id, found.customer and found.customer.id, found.created) for name, found in events.items()
        } == {
            "event_grant": ("evt_test_0001", "cus_test_A", 1_790_000_000.0),
            "event_revoke_all": ("evt_test_0002", "cus_test_A", 1_790_003_600.0),
            "event_truncated_at_ten": ("evt_test_0003", "cus_test_B", 1_790_000_001.0),
        }


class TestASweep:
    @given(count=st.sampled_from([0, 1, 2, 99, 100, 101, 250]), size=st.integers(1, 260))
    def test_has_every_event_in_order_whatever_the_size_of_the_pages(self, count: int, size: int) -> None:
        """Page boundaries lose and invent nothing."""
        items = [event(number) for number in range(count)]
        assert swept(pages_of(items, size)) == [read_event(item) for item in items]

    def test_asks_for_news_since_a_whole_second(self) -> None:
        """Stripe takes whole seconds: the one that the moment falls into is asked for too."""
        assert sweep().params == {"type": NEWS, "created[gte]": "1790000000", "limit": "100"}

    def test_asks_for_each_page_behind_the_last_event_of_the_page_before(self) -> None:
        """The first request has no cursor; each later one has the id that was read last, of whatever type."""
        found = sweep()
        first = found.params
        found.take(page_of([event(1), event(2)], has_more=True))
        assert found.params == first | {"starting_after": "evt_0002"}
        found.take(page_of([event(3), event(4, type="customer.updated")], has_more=True))
        assert found.params == first | {"starting_after": "evt_0004"}

    def test_is_complete_with_its_last_page(self) -> None:
        """Not before the first page, not while there is more; an empty page may be the last."""
        found = sweep()
        assert not found.is_complete
        assert found.take(page_of([event(1)], has_more=True))
        assert not found.is_complete
        assert found.take(page_of([])) == []
        assert found.is_complete

    def test_passes_over_events_of_other_types(self) -> None:
        """A Stripe that ignores ``type`` is slower and no less right: a page without news is progress."""
        others = [event(number, type="customer.updated") for number in range(4)]
        assert swept(pages_of([*others, event(9)], 2)) == [read_event(event(9))]

    def test_of_an_account_gives_it_to_events_that_name_none(self) -> None:
        """An account's own list need not say whose it is; an event that does keeps its own."""
        items = [event(1), event(2, account="acct_other"), event(3, type="x")]
        found = swept([page_of(items)], sweep(account="acct_1"))
        assert [one.customer for one in found] == [Customer("cus_0001", "acct_1"), Customer("cus_0002", "acct_other")]

    def test_of_our_own_account_keeps_what_events_say(self) -> None:
        """Without an account of the list, an event's own is all there is."""
        found = swept([page_of([event(1), event(2, account="acct_1")])])
        assert [one.customer for one in found] == [Customer("cus_0001"), Customer("cus_0002", "acct_1")]

    def test_of_a_live_key_has_live_events(self) -> None:
        """Live events are read by a live key."""
        assert len(swept([page_of([event(1, livemode=True)])], sweep(livemode=True))) == 1

    @pytest.mark.parametrize("livemode", [True, False])
    @pytest.mark.parametrize("type_", [NEWS, "customer.updated"])
    def test_of_the_other_mode_is_an_error(self, livemode: bool, type_: str) -> None:  # noqa: FBT001 -- a case
        """Whatever the type: such a list is not this key's."""
        with pytest.raises(Broken, match="not of the key's mode") as caught:
            swept([page_of([event(1, livemode=not livemode, type=type_)])], sweep(livemode=livemode))
        assert not caught.value.retry

    def test_does_not_take_a_url_with_a_query_amiss(self) -> None:
        """What counts is the path."""
        assert len(swept([page_of([event(1)], url="/v1/events?type=x")])) == 1


class TestProgress:
    @pytest.mark.parametrize("before", [[], [event(1)]])
    def test_is_not_an_empty_page_that_claims_to_have_more(self, before: list[dict[str, Any]]) -> None:
        """It would be asked for again for ever."""
        pages = [page_of(before, has_more=True), page_of([], has_more=True)]
        with pytest.raises(Broken, match="empty page that claims to have more") as caught:
            swept(pages)
        assert not caught.value.retry

    @given(count=st.integers(1, 30), size=st.integers(1, 20), data=st.data())
    def test_is_not_an_event_that_came_before(self, count: int, size: int, data: st.DataObject) -> None:
        """An id that repeats, within a page or on a later one, of whatever type, is an error."""
        items = [event(number, type=data.draw(st.sampled_from([NEWS, "x"]))) for number in range(count)]
        items.insert(data.draw(st.integers(0, count)), copy.copy(data.draw(st.sampled_from(items))))
        with pytest.raises(Broken, match="came twice") as caught:
            swept(pages_of(items, size))
        assert not caught.value.retry

    def test_ends_at_max_pages(self) -> None:
        """A list of exactly `max_pages` pages is read; one of a page more is too much, which is an error of its own."""
        items = [event(number) for number in range(7)]
        assert len(swept(pages_of(items[:6], 2), sweep(max_pages=3))) == 6
        found = sweep(max_pages=3)
        with pytest.raises(Untold, match="more than 3 pages") as caught:
            swept(pages_of(items, 2), found)
        assert not caught.value.retry
        assert caught.value.code == "broken"
        assert not found.is_complete


class TestWhatIsNoPage:
    @pytest.mark.parametrize(
        "page",
        [{}, {"data": []}, {"has_more": False}, {"data": {}, "has_more": False}, {"data": [], "has_more": 0}],
    )
    def test_is_an_error_and_no_empty_list(self, page: dict[str, Any]) -> None:
        """Without a list under data and a boolean under has_more nothing is known."""
        with pytest.raises(Broken, match="without data or has_more") as caught:
            sweep().take({"object": "list", "url": EVENTS_PATH} | page)
        assert caught.value.retry

    @pytest.mark.parametrize(
        "changes",
        [
            {"object": "event"},
            {"object": None},
            {"url": None},
            {"url": 1},
            {"url": "/v1/customers"},
            {"url": "/v1/events/x"},
        ],
    )
    def test_is_a_list_of_something_else(self, changes: dict[str, Any]) -> None:
        """An empty list of other things is not "nothing happened"."""
        with pytest.raises(Broken, match="a list of something else"):
            sweep().take(page_of([]) | changes)

    @given(name=st.sampled_from(["object", "data", "has_more", "url"]), value=JSON)
    def test_fails_in_one_way_only(self, name: str, value: object) -> None:
        """Whatever one of its members is, it is a page or it is broken."""
        found = sweep()
        try:
            events = found.take(page_of([event(1)]) | {name: value})
        except Broken:
            assert not found.is_complete
        else:
            assert len(events) <= 1
