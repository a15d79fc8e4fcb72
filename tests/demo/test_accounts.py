"""What one account knows: who holds what, and the catalogue of features."""

from sidecar.demo import FakeStripe
from tests.demo.asking import FEATURES, Curl, aio, filled


class TestHolding:
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


class TestTheCatalogue:
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

    async def test_features_are_filtered_by_key(self, fake: FakeStripe, curl: Curl) -> None:
        """The list of features takes a key and cursors."""
        filled(fake, 3)
        assert (await curl(FEATURES, params={"lookup_key": "feature-001"})).keys == ["feature-001"]
        first = await curl(FEATURES, params={"limit": "1"})
        rest = await curl(FEATURES, params={"starting_after": first.body["data"][0]["id"]})
        assert first.keys + rest.keys == fake.held("cus_a")
        assert rest.body["url"] == FEATURES
