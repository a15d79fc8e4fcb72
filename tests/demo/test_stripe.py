"""The state as a whole: what changes, what is told of it."""

from datetime import UTC, datetime
from typing import Any

from sidecar.demo import FakeStripe
from sidecar.demo.events import UPDATED
from tests.demo.asking import ACTIVE, Curl, filled
from tests.fakes import FakeClock


class TestState:
    def test_ids_look_like_stripes(self, fake: FakeStripe) -> None:
        """Forty-one characters, all different, with the mode in them."""
        ids = filled(fake, 300)
        assert len(set(ids)) == 300
        assert {len(id_) for id_ in ids} == {41}
        assert all(id_.startswith("ent_test_61") and id_.rpartition("_")[2].isalnum() for id_ in ids)
        assert FakeStripe(key="sk_live_x").grant("cus_a", "sso").startswith("ent_61")

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


class TestWhatIsTold:
    def test_a_change_is_one_event(self, fake: FakeStripe, clock: FakeClock) -> None:
        """Granted, taken away and deleted: each tells what is held now, and what was."""
        fake.now = clock
        first = fake.grant("cus_a", "sso")
        clock.advance(1.5)
        fake.grant("cus_a", "audit")
        fake.revoke("cus_a", "sso")
        fake.delete_customer("cus_a")
        assert [keys(event) for event in told(fake)] == [["sso"], ["audit", "sso"], ["audit"], []]
        assert [keys_before(event) for event in told(fake)] == [[], ["sso"], ["audit", "sso"], ["audit"]]
        assert [event["created"] for event in told(fake)] == [int(clock.now) - 1, *[int(clock.now)] * 3]
        assert told(fake)[0]["data"]["object"]["entitlements"]["data"][0]["id"] == first
        assert len({event["id"] for event in told(fake)}) == 4
        assert {event["type"] for event in told(fake)} == {UPDATED}

    def test_no_change_is_no_event(self, fake: FakeStripe) -> None:
        """Who holds already, who never held, and who holds nothing is nobody's news."""
        fake.add_customer("cus_a")
        fake.revoke("cus_a", "sso")
        fake.delete_customer("cus_a")
        fake.revoke("cus_a", "sso", account="acct_1")
        fake.grant("cus_a", "sso")
        fake.grant("cus_a", "sso")
        assert len(told(fake)) == 1
        assert fake.revoke("cus_a", "sso") == 1
        assert len(told(fake)) == 2

    def test_a_second_feature_of_a_key_is_news(self, fake: FakeStripe) -> None:
        """One more entitlement under the same key; to lose both is one event."""
        fake.grant("cus_a", "sso")
        fake.grant("cus_a", "sso", new_feature=True)
        fake.revoke("cus_a", "sso")
        assert [keys(event) for event in told(fake)] == [["sso"], ["sso", "sso"], []]

    def test_a_summary_is_cut_at_ten(self, fake: FakeStripe) -> None:
        """The eleventh is only hinted at, now and before; nothing tells how many there are."""
        filled(fake, 12)
        *_, eleventh, twelfth = told(fake)
        assert [len(keys(event)) for event in (eleventh, twelfth)] == [10, 10]
        assert len(keys_before(twelfth)) == 10
        assert [e["data"]["object"]["entitlements"]["has_more"] for e in told(fake)] == [False] * 10 + [True] * 2

    def test_a_connected_accounts_event_says_so(self, fake: FakeStripe) -> None:
        """It is kept with that account and carries its name; the own account's carries none."""
        fake.grant("cus_a", "sso")
        fake.grant("cus_a", "sso", account="acct_1")
        assert [event.get("account", "none") for event in told(fake)] == ["none"]
        assert [event["account"] for event in told(fake, "acct_1")] == ["acct_1"]

    def test_anything_can_happen(self, fake: FakeStripe) -> None:
        """An event of another type carries its object as it was then."""
        ada = {"id": "cus_a", "object": "customer", "metadata": {"tier": "gold"}}
        event = fake.emit("customer.updated", ada, account="acct_1")
        ada["metadata"] = {}
        assert event["data"] == {"object": {"id": "cus_a", "object": "customer", "metadata": {"tier": "gold"}}}
        assert told(fake, "acct_1") == [event]

    def test_events_are_of_the_mode_and_of_now(self) -> None:
        """The key tells the mode; without another clock it is the wall's time."""
        for key, livemode in (("sk_live_x", True), ("rk_test_x", False)):
            fake = FakeStripe(key=key)
            before = int(datetime.now(UTC).timestamp())
            fake.grant("cus_a", "sso")
            (event,) = told(fake)
            assert before <= event["created"] <= datetime.now(UTC).timestamp()
            assert event["livemode"] is event["data"]["object"]["livemode"] is livemode


def told(fake: FakeStripe, account: str | None = None) -> list[Any]:
    """List the events, oldest first."""
    return list(fake.accounts[account].events.known(fake.now()).values())


def keys(event: Any) -> list[str]:
    return [item["lookup_key"] for item in event["data"]["object"]["entitlements"]["data"]]


def keys_before(event: Any) -> list[str]:
    return [item["lookup_key"] for item in event["data"]["previous_attributes"]["entitlements"]["data"]]
