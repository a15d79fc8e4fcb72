"""What is rendered from a snapshot is what Stripe would say."""

from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.demo import FakeStripe, serving
from sidecar.model import Entitlement, Feature
from sidecar.stripe import render
from sidecar.stripe.pages import read_page
from tests.fakes import KEY

ITEMS = [Entitlement(f"ent_{letter}", Feature(f"feat_{letter}", f"key-{letter}")) for letter in "abcde"]


def ids(page: dict[str, Any] | None) -> tuple[str, bool]:
    """Shorten a page to its letters and whether there is more."""
    assert page is not None
    return "".join(item["id"].removeprefix("ent_") for item in page["data"]), page["has_more"]


class Asking:
    """A session at the built-in Stripe."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session, self.url = session, url

    async def list(self, **params: Any) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {KEY}"}
        async with self.session.get(self.url + render.LIST_PATH, params=params, headers=headers) as response:
            found: dict[str, Any] = await response.json()
        return found


class TestAPage:
    @pytest.mark.parametrize(
        ("limit", "cursors", "expected"),
        [
            (10, {}, ("abcde", False)),
            (5, {}, ("abcde", False)),
            (4, {}, ("abcd", True)),
            (2, {"after": "ent_a"}, ("bc", True)),
            (3, {"after": "ent_b"}, ("cde", False)),
            (3, {"after": "ent_e"}, ("", False)),
            (2, {"before": "ent_e"}, ("cd", True)),
            (4, {"before": "ent_e"}, ("abcd", False)),
            (2, {"before": "ent_a"}, ("", False)),
        ],
    )
    def test_is_cut_at_its_cursor(self, limit: int, cursors: dict[str, str], expected: tuple[str, bool]) -> None:
        """Behind a cursor comes the next, before one what is nearest to it; both in list order."""
        assert ids(render.page(ITEMS, livemode=False, limit=limit, **cursors)) == expected

    @pytest.mark.parametrize("cursors", [{"after": "ent_x"}, {"before": "ent_x"}, {"after": ""}])
    def test_needs_a_cursor_that_is_there(self, cursors: dict[str, str]) -> None:
        """A cursor that is not in the list is for the caller to refuse."""
        assert render.page(ITEMS, livemode=False, limit=10, **cursors) is None

    def test_of_an_empty_list_is_empty(self) -> None:
        """A customer who has nothing has a list all the same."""
        assert render.page([], livemode=False, limit=1) == {
            "object": "list",
            "data": [],
            "has_more": False,
            "url": "/v1/entitlements/active_entitlements",
        }

    @pytest.mark.parametrize("live", [True, False])
    def test_says_its_objects_as_stripe_does(self, *, live: bool) -> None:
        """Every field of an active entitlement, in the mode of the key."""
        assert render.entitlement(ITEMS[0], livemode=live) == {
            "id": "ent_a",
            "object": "entitlements.active_entitlement",
            "feature": "feat_a",
            "livemode": live,
            "lookup_key": "key-a",
        }

    @given(
        keys=st.lists(st.tuples(st.text(min_size=1), st.text(min_size=1)), max_size=20),
        live=st.booleans(),
        limit=st.integers(1, 25),
    )
    def test_is_read_back_as_what_it_was_made_of(self, keys: list[tuple[str, str]], limit: int, *, live: bool) -> None:
        """Rendering and reading are each other's inverse."""
        items = [Entitlement(f"ent_{number}", Feature(*key)) for number, key in enumerate(keys)]
        page = render.page(items, livemode=live, limit=limit)
        assert page is not None
        found = read_page(page, livemode=live, asked_at=0)
        assert list(found.entitlements) == items[:limit]
        assert found.has_more is (len(items) > limit)

    @given(count=st.integers(0, 25), limit=st.integers(1, 12), start=st.integers(0, 24), forward=st.booleans())
    async def test_is_the_built_in_stripes(self, count: int, limit: int, start: int, *, forward: bool) -> None:
        """From the first page or any cursor on, in either direction, each page equals the built-in Stripe's."""
        stripe = FakeStripe(key=KEY)
        stripe.add_customer("cus_a")
        for number in range(count):
            stripe.grant("cus_a", f"feature-{number:02}")
        async with serving(stripe) as url, aiohttp.ClientSession() as session:
            asking = Asking(session, url)
            whole = await asking.list(customer="cus_a", limit=100)
            items = list(read_page(whole, livemode=False, asked_at=0).entitlements)
            ours, theirs, edge = ("after", "starting_after", -1) if forward else ("before", "ending_before", 0)
            cursor = items[start].id if start < count else None
            more = True
            while more:
                at = {} if cursor is None else {theirs: cursor}
                page = await asking.list(customer="cus_a", limit=limit, **at)
                at = {} if cursor is None else {ours: cursor}
                assert render.page(items, livemode=False, limit=limit, **at) == page
                more = page["has_more"]
                cursor = page["data"][edge]["id"] if more else None


class TestAnError:
    def test_has_only_what_is_known(self) -> None:
        """A type and a message are enough."""
        assert render.error("No.", type_="api_error") == {"error": {"message": "No.", "type": "api_error"}}

    @pytest.mark.parametrize(
        ("params", "message", "param"),
        [
            ({"customer": "cus_nope"}, "No such customer: 'cus_nope'", "customer"),
            ({"customer": "cus_a", "starting_after": "ent_x"}, "No such active entitlement: 'ent_x'", "starting_after"),
        ],
    )
    async def test_is_the_built_in_stripes(
        self, stripe: FakeStripe, upstream: str, params: dict[str, str], message: str, param: str
    ) -> None:
        """A refusal equals the built-in Stripe's, but for the link into a dashboard."""
        stripe.add_customer("cus_a")
        async with aiohttp.ClientSession() as session:
            refused = await Asking(session, upstream).list(**params)
        del refused["error"]["request_log_url"]
        assert render.error(message, code="resource_missing", param=param) == refused
