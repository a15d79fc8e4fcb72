"""The port, and the remote control."""

import asyncio

import aiohttp
import pytest

from sidecar.demo import FakeStripe, Fault, serving
from tests.demo.asking import (
    Curl,
    arrived,
)


class TestServing:
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


async def refused(curl: Curl) -> bool:
    try:
        await curl.held()
    except aiohttp.ClientError:
        return True
    return False


class TestRemoteControl:
    async def test_state_is_changed_and_shown(self, fake: FakeStripe, curl: Curl) -> None:
        """Grant and revoke by hand, keyless, with any lookup key; every answer shows how things stand."""
        await curl("/demo/grant/cus_a/a%2Fb", method="POST", key=None)
        shown = await curl("/demo/grant/cus_a/sso", method="POST", key=None)
        assert shown.body == {"customers": {"cus_a": ["sso", "a/b"]}, "events": 2, "fault": None, "requests": {}}
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
