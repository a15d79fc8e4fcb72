"""The built-in Stripe in a process of its own: one customer who holds ten features, a crowd of whom each holds five.

``upstream.py PORT`` serves it.
"""

import asyncio
import sys

import uvloop

from sidecar.demo import FakeStripe, serving

CUSTOMER = "cus_bench"
KEY = "sk_test_demo"
LOOKUP_KEYS = [f"feature-{number}" for number in range(10)]
CROWD = [f"cus_{number:014}" for number in range(10_000)]
HELD = LOOKUP_KEYS[::2]
"""What each of the crowd holds."""


def filled() -> FakeStripe:
    """Return a Stripe that knows them all; no event tells of it."""
    stripe = FakeStripe(key=KEY)
    own = stripe.accounts[None]
    for customer in (CUSTOMER, *CROWD):
        for lookup_key in LOOKUP_KEYS if customer == CUSTOMER else HELD:
            own.grant(customer, lookup_key, new_feature=False)
    return stripe


async def serve(port: int) -> None:
    """Answer until killed."""
    async with serving(filled(), port=port):
        await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(sys.argv[1])))
