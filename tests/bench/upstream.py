"""The built-in Stripe in a process of its own, with one customer who holds ten features: ``upstream.py PORT``."""

import asyncio
import sys

import uvloop

from sidecar.demo import FakeStripe, serving

CUSTOMER = "cus_bench"
KEY = "sk_test_demo"
LOOKUP_KEYS = [f"feature-{number}" for number in range(10)]


async def serve(port: int) -> None:
    """Answer until killed."""
    stripe = FakeStripe(key=KEY)
    for lookup_key in LOOKUP_KEYS:
        stripe.grant(CUSTOMER, lookup_key)
    async with serving(stripe, port=port):
        await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(sys.argv[1])))
