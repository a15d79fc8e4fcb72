"""``make demo``: the sidecar and the built-in Stripe in one process, asked real questions over real sockets.

Each answer is compared with what is true at the built-in Stripe; a wrong one ends the tour with an error.
"""

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import orjson
from rich.console import Console
from rich.json import JSON

from sidecar import app, demo
from sidecar.api.listening import bind
from sidecar.errors import BadSettings
from sidecar.kit.address import Address
from sidecar.settings import Settings

KEY = "sk_test_demo"
SECRET = "whsec_demo"  # noqa: S105 -- the built-in Stripe's
FRESH_FOR = 2.0
POLL = 1.0
PORTS = (7420, 7421, 7422)


class Tour:
    """The steps, in order."""

    def __init__(
        self, console: Console, stripe: demo.FakeStripe, upstream: str, session: aiohttp.ClientSession
    ) -> None:
        self._console = console
        self._stripe = stripe
        self._upstream = upstream
        self._session = session
        self._url = ""
        self._ops = ""

    async def go(self, sidecar: app.Sidecar) -> None:
        """Walk through everything."""
        self._url = f"http://{sidecar.checks.addresses[0]}"
        self._ops = f"http://{sidecar.ops.addresses[0]}"
        await self._ask_and_ask_again()
        await self._change(sidecar)
        await self._wait()
        await self._break()
        await self._count()

    async def farewell(self) -> None:
        """Say how to go on by hand."""
        self._stripe.grant("cus_ada", "sso")
        await self._stripe.delivered()
        self._say("Your turn", "It stays up until Ctrl-C. In another terminal:")
        for line in (
            f"curl {self._url}/v1/customers/cus_ada/entitlements/sso",
            f"curl {self._url}/v1/customers/cus_ada/explain",
            f"curl -N {self._url}/v1/changes     # and, meanwhile,",
            f"curl -X POST {self._upstream}/demo/revoke/cus_ada/audit-log",
            f"curl -X POST {self._upstream}/demo/break/hang     # error, throttled, half, slow, reset … and /demo/mend",
            f"curl {self._ops}/status",
        ):
            self._console.print(f"  {line}", highlight=False, soft_wrap=True)

    async def _ask_and_ask_again(self) -> None:
        self._say(
            "Ask", "cus_ada pays for sso. The first question reads her whole list from Stripe; later ones do not."
        )
        self._expect(await self._check("cus_ada", "sso"), entitled=True, source="upstream")
        self._expect(await self._check("cus_ada", "sso"), entitled=True, source="memory")
        self._say("Three different no's", "Not sold to her; no such customer. (The third comes when Stripe is down.)")
        self._expect(await self._check("cus_ada", "white-label"), entitled=False, reason="not_entitled")
        self._expect(await self._check("cus_nobody", "sso"), entitled=False, reason="unknown_customer")

    async def _change(self, sidecar: app.Sidecar) -> None:
        endpoint = self._stripe.add_endpoint(f"http://{sidecar.webhooks.addresses[0]}/webhooks/stripe", SECRET)
        self._say("Change", "Stripe grants audit-log and says so in a signed webhook; nobody has to ask for a refresh.")
        self._stripe.grant("cus_ada", "audit-log")
        await self._stripe.delivered()
        self._expect({"taken": [delivery.status for delivery in endpoint.deliveries]}, taken=[200])
        self._expect(await self._check("cus_ada", "audit-log"), entitled=True, stale=False)
        refreshed = await self._ask("POST", "/v1/customers/cus_ada/refresh")
        keys = [item["lookup_key"] for item in refreshed["entitlements"]]
        self._expect({"lookup_keys": keys}, lookup_keys=self._stripe.held("cus_ada"))
        self._say(
            "Lose a webhook", f"Stripe revokes sso, and nobody hears. The events, read every {POLL:g} s, tell it."
        )
        endpoint.lose()
        self._stripe.revoke("cus_ada", "sso")
        await two_polls(sidecar)  # the first may have begun before the change
        self._expect(await self._check("cus_ada", "sso"), entitled=False, stale=False)

    async def _wait(self) -> None:
        self._say("Wait for a grant", "cus_ada comes back from the checkout before Stripe has entitled her.")
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(self._check("cus_ada", "white-label?wait=5s"))
            await asyncio.sleep(0.5)
            self._stripe.grant("cus_ada", "white-label")
        self._expect(waiting.result(), entitled=True)

    async def _break(self) -> None:
        self._say(
            "Break Stripe", f"Every request to it now fails. After {FRESH_FOR:g} s the answer is stale, and says so."
        )
        self._stripe.break_with(demo.Fault.ERROR)
        await asyncio.sleep(FRESH_FOR + 0.5)
        answer = await self._check("cus_ada", "audit-log")
        self._expect(answer, entitled=True, stale=True, source="memory")
        if answer["age"] < FRESH_FOR:
            raise WrongAnswer("the age does not say how long ago Stripe was asked", answer)
        self._say(
            "The third no",
            "Of cus_bob nothing is known yet, so the policy answers (deny, unless you choose otherwise).",
        )
        self._expect(await self._check("cus_bob", "sso"), entitled=False, reason="unavailable", source="policy")
        self._say("Your own bound", "A caller that cannot bear two seconds gets an error instead of an old answer.")
        refused = await self._check("cus_ada", "audit-log", "Cache-Control: max-age=2")
        self._expect(refused, status=503, code="too_old")
        self._say(
            "Mend Stripe", "After so many failures it is left alone for a while; then the sidecar comes back by itself."
        )
        self._stripe.break_with(None)
        async with asyncio.timeout(15):
            while (answer := await self._check("cus_bob", "sso"))["source"] == "policy":  # noqa: ASYNC110 -- asked again
                await asyncio.sleep(1)
        self._expect(answer, entitled=True, stale=False)
        self._expect(
            await self._check("cus_ada", "audit-log", "Cache-Control: no-cache"), stale=False, source="upstream"
        )

    async def _count(self) -> None:
        self._say("What it cost", "A thousand more questions in one batch, and what Stripe saw of everything so far.")
        before = self._stripe.count()
        questions = {"checks": [{"customer": "cus_ada", "lookup_key": "audit-log"}] * 1000}
        async with self._session.post(f"{self._url}/v1/checks", json=questions) as response:
            results = (await response.json())["results"]
        wrong = [result for result in results if result["entitled"] is not True]
        asked = self._stripe.count() - before
        if wrong or len(results) != 1000 or asked > 2:  # a poll and a refresh ahead may fall in between
            raise WrongAnswer("the batch", wrong[:1])
        self._console.print(f"  1000 answers, {asked} requests to Stripe; {before} before.\n")

    async def _check(self, customer: str, lookup_key: str, *headers: str) -> dict[str, Any]:
        return await self._ask("GET", f"/v1/customers/{customer}/entitlements/{lookup_key}", *headers)

    async def _ask(self, method: str, path: str, *headers: str) -> dict[str, Any]:
        shown = "".join(f" -H '{header}'" for header in headers) + (" -X POST" if method == "POST" else "")
        self._console.print(f"  $ curl{shown} {self._url}{path}", style="bold", highlight=False, soft_wrap=True)
        sent = dict(header.split(": ") for header in headers)
        async with self._session.request(method, self._url + path, headers=sent) as response:
            body = await response.read()
        self._console.print("   ", JSON(body.decode(), indent=None), soft_wrap=True)
        found: dict[str, Any] = orjson.loads(body)
        return found

    def _say(self, title: str, text: str) -> None:
        self._console.print(f"\n[bold cyan]{title}[/]  {text}", highlight=False)

    def _expect(self, answer: dict[str, Any], **expected: Any) -> None:
        if any(answer.get(name) != value for name, value in expected.items()):
            raise WrongAnswer(f"expected {expected}", answer)


class WrongAnswer(AssertionError):
    """The tour was told something that is not so."""


async def take(stop: asyncio.Event, *, stay: bool, console: Console | None = None) -> None:
    """Take the tour, and with ``stay`` remain until ``stop`` is set."""
    console = console or Console(highlight=False)
    stripe = demo.FakeStripe(key=KEY)
    for customer, keys in {"cus_ada": ("seats-10", "sso"), "cus_bob": ("sso",)}.items():
        for key in keys:
            stripe.grant(customer, key)
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(demo.serving(stripe))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        tour, started, ended = Tour(console, stripe, upstream, session), asyncio.Event(), asyncio.Event()
        running: list[app.Sidecar] = []

        def begin(sidecar: app.Sidecar) -> None:
            running.append(sidecar)
            started.set()

        async with asyncio.TaskGroup() as group:
            _ = group.create_task(app.serve(settings(upstream), ended, started=begin))
            await started.wait()
            try:
                await unless(stop, tour.go(running[0]))
                if stay and not stop.is_set():
                    await tour.farewell()
                    await stop.wait()
            finally:
                ended.set()


async def two_polls(sidecar: app.Sidecar) -> None:
    """Wait until the events have been read twice."""
    polls, before = sidecar.feed.polls, sidecar.feed.polls["complete"]
    async with asyncio.timeout(10):
        while polls["complete"] < before + 2:  # noqa: ASYNC110 -- a count that nobody announces
            await asyncio.sleep(POLL / 10)


async def unless(stop: asyncio.Event, walk: Coroutine[Any, Any, None]) -> None:
    """Walk to the end, or until ``stop`` is set."""
    async with asyncio.TaskGroup() as group:
        stopping = group.create_task(stop.wait())
        walking = group.create_task(walk)
        await asyncio.wait((stopping, walking), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        walking.cancel()


def settings(upstream: str) -> Settings:
    """Return settings for the tour, on the usual ports where these are free; nothing in the environment changes them."""
    listen, ops_listen, webhook_listen = (f"127.0.0.1:{port if is_free(port) else 0}" for port in PORTS)
    return Settings.model_validate(
        {
            "stripe_api_key": KEY,
            "stripe_api_base": upstream,
            "fresh_for": FRESH_FOR,
            "deadline": 1.0,
            "dirty_wait": 1.0,
            "events_poll": POLL,
            "events_lag": 0.0,
            "webhook_secret": SECRET,
            "listen": listen,
            "ops_listen": ops_listen,
            "webhook_listen": webhook_listen,
        }
    )


def is_free(port: int) -> bool:
    """Tell whether nobody listens on ``port``."""
    try:
        bind(Address("127.0.0.1", port)).close()
    except BadSettings:
        return False
    return True
