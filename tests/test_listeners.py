"""Applications on sockets: what each is made of, how it opens, and how it is drained."""

import aiohttp
import pytest

from sidecar import app
from sidecar.listeners import listening
from tests.fakes import SECRET, running, settings_for


async def test_each_listener_has_its_own_routes(upstream: str) -> None:
    """What is reachable from the internet takes webhooks and answers nothing else."""
    async with running(upstream, webhook_secret=SECRET) as sidecar:
        async with sidecar.session.post(f"{sidecar.webhook_url}/webhooks/stripe") as response:
            assert (response.status, (await response.json(content_type=None))["code"]) == (400, "no_signature")
        for method, path in (("GET", "/metrics"), ("GET", "/status"), ("POST", "/v1/checks"), ("GET", "/v1/changes")):
            async with sidecar.session.request(method, sidecar.webhook_url + path) as response:
                assert response.status == 404
        for url in (sidecar.url, sidecar.ops_url):
            async with sidecar.session.post(f"{url}/webhooks/stripe") as response:
                assert response.status == 404


async def test_a_listener_says_where_it_is(upstream: str) -> None:
    """All its addresses, for people; without a socket there is none."""
    async with app.assembled(settings_for(upstream, listen="127.0.0.1:0,127.0.0.1:0")) as sidecar:
        assert str(sidecar.checks) == ", ".join(sidecar.checks.addresses)
        assert len(sidecar.checks.addresses) == 2
        assert sidecar.listeners == [sidecar.ops, sidecar.checks]


async def test_what_was_listened_on_is_free_afterwards(upstream: str) -> None:
    """Whoever connects then is refused."""
    async with app.assembled(settings_for(upstream)) as sidecar, aiohttp.ClientSession() as session:
        url = f"http://{sidecar.ops.addresses[0]}/livez"
        async with listening(*sidecar.listeners), session.get(url) as response:
            assert response.status == 200
        with pytest.raises(aiohttp.ClientConnectionError):
            await session.get(url)
