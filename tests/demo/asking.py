"""Ways to ask the built-in Stripe: plain HTTP, the official SDK in a thread and on the loop, bare bytes."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp
import stripe

from sidecar.demo import FakeStripe, serving

stripe.enable_telemetry = False  # it would write a file into the user's configuration

T = TypeVar("T")
Check = Callable[[str, Any], None]

KEY = "sk_test_demo"
ACTIVE = "/v1/entitlements/active_entitlements"
FEATURES = "/v1/entitlements/features"
EVENTS = "/v1/events"


@dataclass
class Answer:
    status: int
    headers: Any
    body: Any

    @property
    def error(self) -> Any:
        return self.body["error"]

    @property
    def keys(self) -> list[str]:
        return [item["lookup_key"] for item in self.body["data"]]


class Curl:
    """Plain HTTP with the right key, unless told otherwise."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session, self.url = session, url

    async def __call__(self, path: str, *, method: str = "GET", key: str | None = KEY, **options: Any) -> Answer:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        headers |= options.pop("headers", {})
        async with self.session.request(method, self.url + path, headers=headers, **options) as response:
            text = await response.text()
            body = json.loads(text) if response.content_type == "application/json" else text
            return Answer(response.status, response.headers, body)

    async def held(self, customer: str = "cus_a", **params: str) -> Answer:
        return await self(ACTIVE, params={"customer": customer, **params})


@asynccontextmanager
async def curling(fake: FakeStripe) -> AsyncIterator[Curl]:
    timeout = aiohttp.ClientTimeout(total=5)
    async with serving(fake) as url, aiohttp.ClientSession(timeout=timeout) as session:
        yield Curl(session, url)


async def in_thread(url: str, ask: Callable[[stripe.StripeClient], T], key: str = KEY) -> T:
    """Ask through the synchronous SDK, which keeps its connections per thread."""

    def asked() -> T:
        http = stripe.RequestsClient()
        try:
            return ask(stripe.StripeClient(key, base_addresses={"api": url}, http_client=http, max_network_retries=0))
        finally:
            http.close()

    return await asyncio.to_thread(asked)


def aio(curl: Curl, key: str = KEY) -> stripe.StripeClient:
    """Make the asynchronous SDK, on the session of the test."""
    http = stripe.AIOHTTPClient(session=curl.session)
    return stripe.StripeClient(key, base_addresses={"api": curl.url}, http_client=http, max_network_retries=0)


def sdk_list(sdk: stripe.StripeClient, customer: str = "cus_a", options: Any = None, **params: Any) -> Any:
    asked: Any = {"customer": customer, **params}
    return sdk.v1.entitlements.active_entitlements.list(asked, options)


def filled(fake: FakeStripe, count: int, customer: str = "cus_a") -> list[str]:
    """Grant so many entitlements and give their ids, newest first."""
    fake.add_customer(customer)
    return [fake.grant(customer, f"feature-{number:03}") for number in range(count)][::-1]


async def raw(url: str) -> tuple[str, bytes]:
    """Ask without a library and read until the connection ends."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    request = (
        f"GET {ACTIVE}?customer=cus_a HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nConnection: close\r\n\r\n"
    )
    writer.write(request.encode())
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.decode(), body


async def arrived(fake: FakeStripe, count: int = 1) -> None:
    while fake.count() < count:
        await asyncio.sleep(0.001)
