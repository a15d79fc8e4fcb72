"""How it is served: the API on a port, webhooks while that is open, and a remote control for a reader's own curl."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from urllib.parse import unquote

from aiohttp import web

from sidecar.demo.answers import receive
from sidecar.demo.faults import Fault, Json
from sidecar.demo.stripe import FakeStripe

NOTICEABLE = 2.0  # seconds: what /demo/break/slow adds
PARTING = 0.05  # seconds that requests under way get when the server closes


@asynccontextmanager
async def serving(stripe: FakeStripe, *, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """
    Serve, send webhooks and yield the base URL; port 0 takes a free one.

    Closing waits for nobody, least of all for what hangs. The state stays, so Stripe can go away and come back.
    """
    runner = web.AppRunner(_app(stripe), access_log=None, handler_cancellation=True, shutdown_timeout=PARTING)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        async with stripe.webhooks.sending():
            yield f"http://{host}:{runner.addresses[0][1]}"
    finally:
        for _ in range(3):  # turns of the loop that a connection needs to be accepted; asyncio trips over half of one
            await asyncio.sleep(0)
        await runner.cleanup()


def _app(stripe: FakeStripe) -> web.Application:
    app = web.Application()
    for path in ("/demo", "/demo/{rest:.*}"):
        app.router.add_route("*", path, partial(_control, stripe))
    app.router.add_route("*", "/{rest:.*}", partial(receive, stripe))
    return app


async def _control(stripe: FakeStripe, request: web.Request) -> web.Response:
    """Do what the path says and show how things stand; never broken, never counted, no key asked."""
    status = 200
    match [request.method, *map(unquote, request.rel_url.raw_path.split("/")[2:])]:
        case ["GET"]:
            pass
        case ["POST", "grant", customer, lookup_key]:
            stripe.grant(customer, lookup_key)
        case ["POST", "revoke", customer, lookup_key]:
            stripe.revoke(customer, lookup_key)
        case ["POST", "break", fault] if fault in list(Fault):
            stripe.break_with(Fault(fault), delay=NOTICEABLE)
        case ["POST", "mend"]:
            stripe.break_with(None)
        case _:
            status = 404
    return web.json_response(_overview(stripe) | ({"faults": list(Fault)} if status == 404 else {}), status=status)


def _overview(stripe: FakeStripe) -> Json:
    own = stripe.accounts[None]
    return {
        "customers": {customer: stripe.held(customer) for customer in own.customers},
        "events": len(own.events),
        "fault": stripe.fault,
        "requests": Counter(seen.operation for seen in stripe.requests),
    }
