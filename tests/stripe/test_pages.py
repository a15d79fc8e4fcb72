"""A list is read whole or not at all, whatever the pages look like."""

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import Broken, UpstreamError
from sidecar.model import Customer, Snapshot
from sidecar.stripe.answers import read_json
from sidecar.stripe.pages import PAGE_SIZE, Page, Reading, read_entitlement, read_page

ADA = Customer("cus_ada")
LENGTHS = (0, 1, 9, 10, 11, 99, 100, 101, 250)
ASKED_AT = 1_790_000_000.0

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def entitlement(number: int, **changes: Any) -> dict[str, Any]:
    """Make an entitlement as Stripe says it; a change to None takes the field away."""
    item = {
        "id": f"ent_test_{number:04}",
        "object": "entitlements.active_entitlement",
        "feature": f"feat_test_{number:04}",
        "livemode": False,
        "lookup_key": f"feature-{number:04}",
    }
    return {name: value for name, value in (item | changes).items() if value is not None}


def pages_of(items: Sequence[Any], size: int) -> list[dict[str, Any]]:
    """Cut a list into pages; an empty list is one page."""
    starts = range(0, max(1, len(items)), size)
    return [
        {
            "object": "list",
            "data": list(items[start : start + size]),
            "has_more": start + size < len(items),
            "url": "/v1/entitlements/active_entitlements",
        }
        for start in starts
    ]


def read(pages: Iterable[dict[str, Any]], *, max_pages: int = 1000, livemode: bool = False) -> Snapshot:
    """Read as the client does, each page a second after the one before."""
    reading, snapshot, rest = Reading(ADA, max_pages=max_pages), None, enumerate(pages)
    while snapshot is None:
        assert reading.params["limit"] == str(PAGE_SIZE)
        number, page = next(rest)
        snapshot = reading.take(read_page(page, livemode=livemode, asked_at=ASKED_AT + number))
    return snapshot


def ids_of(pages: Iterable[dict[str, Any]]) -> tuple[str, ...]:
    return tuple(item["id"] for page in pages for item in page["data"])


class TestACompleteRead:
    @given(count=st.sampled_from(LENGTHS), size=st.integers(1, 260))
    def test_has_every_entitlement_in_order_whatever_the_size_of_the_pages(self, count: int, size: int) -> None:
        """0 to 250 entitlements in pages of any size give a snapshot of exactly these, in Stripe's order."""
        items = [entitlement(number) for number in range(count)]
        snapshot = read(pages_of(items, size))
        assert snapshot.customer == ADA
        assert snapshot.unknown is None
        assert [(e.id, e.feature.id, e.feature.lookup_key) for e in snapshot.entitlements] == [
            (item["id"], item["feature"], item["lookup_key"]) for item in items
        ]
        assert snapshot.plan.lookup_keys == {item["lookup_key"] for item in items}

    @given(sizes=st.lists(st.integers(1, 100), min_size=1, max_size=8))
    def test_may_have_pages_of_different_sizes(self, sizes: list[int]) -> None:
        """Pages need not be equally long: a page shorter than the limit says nothing about the end."""
        numbers = iter(range(sum(sizes)))
        pages = [pages_of([entitlement(next(numbers)) for _ in range(size)], size)[0] for size in sizes]
        for page in pages[:-1]:
            page["has_more"] = True
        assert read(pages).ids == ids_of(pages)

    def test_may_end_with_an_empty_page(self) -> None:
        """A last page that has nothing is the end: what it would have had was revoked meanwhile."""
        pages = [*pages_of([entitlement(1)], 1), *pages_of([], 1)]
        pages[0]["has_more"] = True
        assert read(pages).ids == ("ent_test_0001",)

    def test_was_true_when_its_first_page_was_asked_for(self) -> None:
        """`taken_at` is the moment before the first page's request, however many pages follow."""
        assert read(pages_of([entitlement(number) for number in range(5)], 2)).taken_at == ASKED_AT

    def test_asks_for_each_page_behind_the_last_entitlement_of_the_page_before(self) -> None:
        """The first request has no cursor; each later one has the id that was read last."""
        reading = Reading(ADA, max_pages=3)
        assert reading.params == {"customer": "cus_ada", "limit": "100"}
        pages = pages_of([entitlement(number) for number in range(6)], 2)
        for page, last in zip(pages, ["ent_test_0001", "ent_test_0003"], strict=False):
            assert reading.take(read_page(page, livemode=False, asked_at=ASKED_AT)) is None
            assert reading.params == {"customer": "cus_ada", "limit": "100", "starting_after": last}

    def test_keeps_two_features_that_share_a_lookup_key(self) -> None:
        """An archived feature's key may be used again; who holds both has two entitlements of one key."""
        snapshot = read(pages_of([entitlement(1, lookup_key="sso"), entitlement(2, lookup_key="sso")], 10))
        assert [e.feature.id for e in snapshot.entitlements] == ["feat_test_0001", "feat_test_0002"]
        assert snapshot.plan.lookup_keys == {"sso"}

    def test_takes_features_that_were_expanded(self) -> None:
        """An expanded feature is an object; its id is what counts."""
        expanded = entitlement(1, feature={"id": "feat_test_0001", "object": "entitlements.feature", "name": "One"})
        assert read(pages_of([expanded], 10)) == read(pages_of([entitlement(1)], 10))

    def test_of_a_live_key_has_live_objects(self) -> None:
        """Live objects are read by a live key."""
        assert read(pages_of([entitlement(1, livemode=True)], 10), livemode=True).ids == ("ent_test_0001",)

    @given(ids=st.lists(st.text(st.characters(exclude_characters="\n"), min_size=1), unique=True, max_size=8))
    def test_keeps_whatever_is_an_id(self, ids: list[str]) -> None:
        """They are compared with others later, and given back: none is changed, none is taken for two."""
        found = read(pages_of([entitlement(number, id=id_) for number, id_ in enumerate(ids)], 3))
        assert [item.id for item in found.entitlements] == list(found.ids) == ids

    def test_does_not_mind_fields_that_are_new(self) -> None:
        """Stripe adds fields without a new version."""
        page = pages_of([entitlement(1, metadata={"a": "b"})], 10)[0] | {"total_count": 1}
        assert read([page]).ids == ("ent_test_0001",)


class TestProgress:
    def test_is_not_an_empty_page_that_claims_to_have_more(self) -> None:
        """An empty page with has_more would be asked for again for ever."""
        page = pages_of([], 10)[0] | {"has_more": True}
        with pytest.raises(Broken, match="empty page that claims to have more") as caught:
            read([page])
        assert not caught.value.retry

    def test_is_not_an_empty_page_in_the_middle(self) -> None:
        """The same behind a page that had something."""
        pages = pages_of([entitlement(number) for number in range(4)], 2)
        with pytest.raises(Broken, match="empty page"):
            read([pages[0], pages_of([], 10)[0] | {"has_more": True}, pages[1]])

    @pytest.mark.parametrize("size", [1, 2, 3])
    def test_is_not_an_entitlement_that_came_before(self, size: int) -> None:
        """An id that repeats, within a page or on a later one, is an error and no shorter list."""
        items = [entitlement(1), entitlement(2), entitlement(1)]
        with pytest.raises(Broken, match="came twice") as caught:
            read(pages_of(items, size))
        assert not caught.value.retry

    @given(count=st.integers(1, 60), size=st.integers(1, 20), data=st.data())
    def test_is_not_an_entitlement_that_came_anywhere_before(self, count: int, size: int, data: st.DataObject) -> None:
        """Wherever one of a list's entitlements is repeated, there is no snapshot."""
        items = [entitlement(number) for number in range(count)]
        again = data.draw(st.sampled_from(items))
        items.insert(data.draw(st.integers(0, count)), again)
        with pytest.raises(Broken, match="came twice"):
            read(pages_of(items, size))

    def test_ends_at_max_pages(self) -> None:
        """A list of exactly `max_pages` pages is read; one of a page more is an error."""
        items = [entitlement(number) for number in range(7)]
        assert len(read(pages_of(items[:6], 2), max_pages=3).ids) == 6
        with pytest.raises(Broken, match="more than 3 pages") as caught:
            read(pages_of(items, 2), max_pages=3)
        assert not caught.value.retry


class TestWhatIsNoPage:
    @pytest.mark.parametrize(
        "page",
        [
            {},
            {"data": []},
            {"has_more": False},
            {"data": {}, "has_more": False},
            {"data": None, "has_more": False},
            {"data": [], "has_more": None},
            {"data": [], "has_more": "false"},
            {"data": [], "has_more": 0},
            {"error": {"type": "api_error"}},
        ],
    )
    def test_is_an_error_and_no_empty_list(self, page: dict[str, Any]) -> None:
        """Without a list under data and a boolean under has_more nothing is known about the customer."""
        with pytest.raises(Broken, match="without data or has_more") as caught:
            read_page(page, livemode=False, asked_at=ASKED_AT)
        assert caught.value.retry

    @pytest.mark.parametrize("item", [None, "ent_test_0001", 1, [], [entitlement(1)]])
    def test_has_entitlements_that_are_no_objects(self, item: object) -> None:
        """An element that is no object spoils the page."""
        with pytest.raises(Broken, match="not an entitlement"):
            read_entitlement(item, livemode=False)

    @pytest.mark.parametrize("field", ["id", "feature", "lookup_key"])
    @pytest.mark.parametrize("value", [None, "", 1, ["x"], {}, {"id": ""}, {"id": 1}])
    def test_has_entitlements_without_id_feature_or_lookup_key(self, field: str, value: object) -> None:
        """A field that is missing, empty or no text spoils the page."""
        with pytest.raises(Broken, match="without id, feature or lookup_key"):
            read_page(pages_of([entitlement(1), entitlement(2, **{field: value})], 10)[0], livemode=False, asked_at=0)

    def test_has_an_id_of_two_lines(self) -> None:
        """No id of Stripe's has; ids are kept line by line, so it would be taken for two."""
        with pytest.raises(Broken, match="a line break"):
            read_entitlement(entitlement(1, id="ent_test\n0001"), livemode=False)

    @pytest.mark.parametrize("said", [None, True, "false", 0])
    def test_has_entitlements_of_another_mode_than_a_test_key(self, said: object) -> None:
        """What is not plainly of the key's mode is an error that a retry does not change."""
        with pytest.raises(Broken, match=r"not of the key's mode \(test\)") as caught:
            read_entitlement(entitlement(1, livemode=said), livemode=False)
        assert not caught.value.retry

    @pytest.mark.parametrize("said", [None, False, "true", 1])
    def test_has_entitlements_of_another_mode_than_a_live_key(self, said: object) -> None:
        """The same for a live key."""
        with pytest.raises(Broken, match=r"not of the key's mode \(live\)"):
            read_entitlement(entitlement(1, livemode=said), livemode=True)


Mutation = Callable[[list[Any], st.DataObject], None]


def without_a_field(pages: list[Any], data: st.DataObject) -> None:
    """Take a field from a page or from one of its entitlements."""
    page = data.draw(st.sampled_from(pages))
    whole = data.draw(st.sampled_from([page, *page["data"]]))
    del whole[data.draw(st.sampled_from(sorted(whole)))]


def with_a_field_of_another_kind(pages: list[Any], data: st.DataObject) -> None:
    """Replace a field by any JSON of another kind."""
    page = data.draw(st.sampled_from(pages))
    whole = data.draw(st.sampled_from([page, *page["data"]]))
    name = data.draw(st.sampled_from(sorted(whole)))
    whole[name] = data.draw(JSON.filter(lambda value: type(value) is not type(whole[name])))


def with_an_entitlement_replaced(pages: list[Any], data: st.DataObject) -> None:
    """Replace an entitlement by any JSON."""
    page = data.draw(st.sampled_from([page for page in pages if page["data"]]))
    page["data"][data.draw(st.integers(0, len(page["data"]) - 1))] = data.draw(JSON)


def with_a_page_twice(pages: list[Any], data: st.DataObject) -> None:
    """Let a page come twice."""
    again = data.draw(st.integers(0, len(pages) - 1))
    pages.insert(again, copy.deepcopy(pages[again]))


class TestASpoiltRead:
    @pytest.mark.parametrize(
        "spoil", [without_a_field, with_a_field_of_another_kind, with_an_entitlement_replaced, with_a_page_twice]
    )
    @given(count=st.integers(1, 12), size=st.integers(1, 6), data=st.data())
    def test_is_never_a_shorter_list(self, spoil: Mutation, count: int, size: int, data: st.DataObject) -> None:
        """Pages that were tampered with give an upstream error, or a snapshot with every id; never fewer."""
        pages = pages_of([entitlement(number) for number in range(count)], size)
        ids = ids_of(pages)
        spoil(pages, data)
        try:
            snapshot = read(pages)
        except UpstreamError:
            return
        assert len(snapshot.ids) == len(ids)

    @given(count=st.integers(0, 8), size=st.integers(1, 4), data=st.data())
    def test_is_never_half_a_body(self, count: int, size: int, data: st.DataObject) -> None:
        """A page cut off at any byte is an error, never the entitlements that came through."""
        page = orjson.dumps(pages_of([entitlement(number) for number in range(count)], size)[0])
        cut = page[: data.draw(st.integers(0, len(page) - 1))]
        with pytest.raises(Broken, match="Stripe answered 200 with"):
            read_page(read_json(cut, status=200, request_id=None), livemode=False, asked_at=0)

    @given(count=st.integers(1, 8), data=st.data())
    def test_has_as_many_entitlements_as_it_says(self, count: int, data: st.DataObject) -> None:
        """Bytes flipped in a page give an error, or as many entitlements as the page still says."""
        page = bytearray(orjson.dumps(pages_of([entitlement(number) for number in range(count)], count)[0]))
        page[data.draw(st.integers(0, len(page) - 1))] = data.draw(st.integers(0, 255))
        try:
            found = read_page(read_json(bytes(page), status=200, request_id=None), livemode=False, asked_at=0)
        except Broken:
            return
        assert isinstance(found, Page)
        assert len(found.entitlements) == count

    @given(
        page=st.fixed_dictionaries(
            {}, optional={"data": st.just([]) | st.lists(JSON, max_size=3) | JSON, "has_more": st.booleans() | JSON}
        )
    )
    def test_raises_nothing_else(self, page: dict[str, Any]) -> None:
        """Any object at all is a page or Broken."""
        try:
            found = read_page(page, livemode=False, asked_at=ASKED_AT)
        except Broken:
            return
        assert found == Page((), has_more=page["has_more"], asked_at=ASKED_AT)


@pytest.mark.parametrize(
    "changes",
    [
        {"object": "search_result"},
        {"object": None},
        {"url": "/v1/customers"},
        {"url": None},
        {"url": 1},
        {"url": "/v1/entitlements/features"},
    ],
    ids=str,
)
def test_an_empty_list_of_something_else_is_no_no(changes: dict[str, Any]) -> None:
    """Only Stripe's list of active entitlements can say that a customer has none."""
    page = {"object": "list", "data": [], "has_more": False, "url": "/v1/entitlements/active_entitlements"}
    assert read_page(page | {"url": f"{page['url']}?customer=cus_ada"}, livemode=False, asked_at=1.0).entitlements == ()
    with pytest.raises(Broken, match="something else"):
        read_page(page | changes, livemode=False, asked_at=1.0)


def test_an_object_of_another_kind_is_no_entitlement() -> None:
    """A feature has an id, a lookup_key and a mode too, and entitles to nothing."""
    with pytest.raises(Broken, match="not an entitlement"):
        read_entitlement(entitlement(1) | {"object": "entitlements.feature"}, livemode=False)
