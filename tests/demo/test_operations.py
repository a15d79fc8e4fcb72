"""Each request as it arrived."""

from sidecar.demo import FakeStripe
from tests.demo.asking import ACTIVE, FEATURES, KEY, Curl


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
