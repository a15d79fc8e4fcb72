"""
A Stripe small enough to read; imports nothing of ours. The upstream of `make demo` and of the tests.

stripe      `FakeStripe`: whom it knows, what changes, and the switches that break it; begin here
accounts    what one account knows: features, customers, entitlements
events      every change as an event, kept for 30 days, and `GET /v1/events`
webhooks    the same events signed and posted, again and again until somebody takes them
server      on a port: `serving`, and under /demo a remote control for a reader's own curl
answers     a request from its arrival to the response, in Stripe's words
operations  what can be asked, and `Seen`: one request as it arrived
pages       parameters, and lists cut at cursors
faults      what can go wrong: `Fault`, and `Refusal`: a no as Stripe says it
"""

from sidecar.demo.faults import Fault, Refusal
from sidecar.demo.operations import OPERATIONS, Seen
from sidecar.demo.server import serving
from sidecar.demo.stripe import FakeStripe
from sidecar.demo.webhooks import Delivery, Endpoint, sign

__all__ = ["OPERATIONS", "Delivery", "Endpoint", "FakeStripe", "Fault", "Refusal", "Seen", "serving", "sign"]
