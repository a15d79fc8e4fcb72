"""What lists and their parameters are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.demo import FakeStripe, Refusal, Seen
from sidecar.demo.operations import OPERATIONS
from sidecar.demo.pages import checked, integer, page
from tests.demo.asking import ACTIVE, FEATURES, Curl, filled


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

    @given(st.lists(st.booleans(), max_size=30), st.integers(1, 7))
    def test_pages_in_both_directions_miss_nothing(self, wanted: list[bool], limit: int) -> None:
        """From page to page, either way and from any object, everything that matches comes once."""
        known = {str(number): {"id": str(number), "wanted": is_wanted} for number, is_wanted in enumerate(wanted)}
        newest_first = [id_ for id_ in list(known)[::-1] if known[id_]["wanted"]]

        def walked(cursor: str, start: str | None) -> list[str]:
            ids: list[str] = []
            more = True
            while more:
                params = {"limit": str(limit)} | ({cursor: start} if start else {})
                cut = page("/", "thing", known, params, lambda item: bool(item["wanted"]))
                more, found = cut["has_more"], [item["id"] for item in cut["data"]]
                ids = found + ids if cursor == "ending_before" else ids + found
                start = (found[0] if cursor == "ending_before" else found[-1]) if found else None
                assert found or not more
            return ids

        assert walked("starting_after", None) == newest_first
        for place in known:
            assert walked("starting_after", place) == [id_ for id_ in newest_first if int(id_) < int(place)]
            assert walked("ending_before", place) == [id_ for id_ in newest_first if int(id_) > int(place)]


class TestParameters:
    def test_lists_are_numbered(self) -> None:
        """What is given without a number gets one; expand is one thing, however spelt."""
        pairs = [("types[]", "a"), ("types[]", "b"), ("created[gt]", "1")]
        assert checked(pairs, OPERATIONS["GET", "/v1/events"]) == {"types[0]": "a", "types[1]": "b", "created[gt]": "1"}
        assert checked([("expand[]", "feature")], OPERATIONS["GET", f"{ACTIVE}/*"]) == {"expand": "feature"}

    @pytest.mark.parametrize(("text", "value"), [("0", 0), ("-5", -5), ("0012", 12), ("9" * 18, 10**18 - 1)])
    def test_integers_may_be_negative(self, text: str, value: int) -> None:
        """Digits, with or without a minus."""
        assert integer({"created": text}, "created") == value

    @pytest.mark.parametrize("text", ["", "-", "1.5", "1e3", "+1", " 1", "1\n", "٣", "9" * 19])
    def test_what_is_no_integer_is_refused(self, text: str) -> None:
        """Nothing else is a number, whatever int() would make of it."""
        with pytest.raises(Refusal, match="Invalid integer"):
            integer({"created": text}, "created")
