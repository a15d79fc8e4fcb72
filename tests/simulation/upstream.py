"""Stripe as the sidecar meets it: answers what was true when a request arrived, late, broken or not at all.

It takes the place of ``sidecar.stripe.transport.Transport``, so everything above that is the real thing.
"""

import asyncio
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

import orjson
from yarl import URL

from sidecar.errors import Broken, Unreachable
from sidecar.model import Customer
from sidecar.stripe.answers import Answer
from sidecar.stripe.events import EVENTS_PATH, NEWS
from sidecar.stripe.render import LIST_PATH, OBJECT
from tests.simulation.history import History
from tests.simulation.scenario import TROUBLES, Outage, Scenario
from tests.simulation.timing import Time
from tests.simulation.truth import Event, Holding

TIMEOUT = 10.0
BASE = "https://stripe.test"

Reply = tuple[int, dict[str, Any], dict[str, str]]


class Upstream:
    """Stripe and the way there. After ``calm`` nothing goes wrong any more."""

    def __init__(self, scenario: Scenario, rng: Random, time: Time, history: History) -> None:
        self.calm = False
        self._knobs = scenario.knobs
        self._truth = scenario.truth
        self._outages = scenario.outages
        self._rng = rng
        self._time = time
        self._history = history

    async def answer(self, url: URL, headers: Mapping[str, str], asked_at: float) -> Answer:
        """Answer one request, as ``Transport.get`` does."""
        operation = "events" if url.path == EVENTS_PATH else "list"
        trouble = self._trouble(operation)
        latency = self._latency(trouble)
        if trouble == "refused":
            await asyncio.sleep(self._rng.choice((0.0, 0.01, 2.0)))
            raise Unreachable("connection refused")
        if trouble == "lost" or latency > TIMEOUT:
            await asyncio.sleep(TIMEOUT)
            raise Unreachable("no answer in time")
        there = latency * self._rng.random()
        await asyncio.sleep(there)
        status, body, extra = self._reply(operation, url.query, headers.get("Stripe-Account"), trouble)
        await asyncio.sleep(latency - there)
        return Answer(status, self._bytes(body, trouble), extra, asked_at)

    def coincidence(self, customer: Customer) -> Event | None:
        """Return news of ``customer`` that comes at this very moment, seldom."""
        if self.calm or self._rng.random() > 0.06:
            return None
        now = self._time()
        happened = [event for event in self._truth.events if event.customer == customer and event.changed <= now]
        return self._rng.choice(happened) if happened else None

    def _trouble(self, operation: str) -> str | None:
        """Return what goes wrong with a request that is sent now."""
        if self.calm:
            return None
        for outage in self._outages:
            if outage.start <= self._time.now < outage.stop and outage.operation in (None, operation):
                return self._note(outage)
        if self._rng.random() < self._knobs.trouble:
            return self._note(Outage(0.0, 0.0, operation, self._rng.choice(TROUBLES)))
        return None

    def _note(self, outage: Outage) -> str:
        self._history.counts[f"trouble {outage.how}"] += 1
        return outage.how

    def _latency(self, trouble: str | None) -> float:
        if self.calm:
            return 0.05
        latency = self._knobs.latency * self._rng.expovariate(1.0)
        return latency + self._rng.uniform(3.0, 9.0) if trouble == "slow" else latency

    def _bytes(self, body: dict[str, Any], trouble: str | None) -> bytes:
        text = orjson.dumps(body)
        if trouble == "half":
            if self._rng.random() < 0.5:
                raise Broken("the answer was cut off")
            return text[: len(text) // 2]
        return b"<html>Bad gateway" if trouble == "html" else text

    def _reply(self, operation: str, query: Mapping[str, str], account: str | None, trouble: str | None) -> Reply:
        if trouble in ("500", "429", "throttled"):
            return self._refusal(trouble)
        if trouble == "403":
            return 403, {"error": {"message": "the key may not read this", "type": "invalid_request_error"}}, {}
        if operation == "events":
            return self._events(query, account)
        return self._list(query, Customer(query["customer"], account))

    def _refusal(self, trouble: str) -> Reply:
        """Return an error that may pass, unless Stripe says that it will not."""
        headers = {"Stripe-Should-Retry": "false"} if self._rng.random() < 0.4 else {}
        if trouble == "500":
            return 500, {"error": {"message": "oh", "type": "api_error"}}, headers
        if trouble == "throttled":
            headers |= {"Stripe-Rate-Limited-Reason": "endpoint-rate"}
            headers |= {"Retry-After": "1"} if self._rng.random() < 0.3 else {}
        return 429, {"error": {"message": "slow down", "type": "invalid_request_error"}}, headers

    def _list(self, query: Mapping[str, str], customer: Customer) -> Reply:
        now, person = self._time(), self._truth.people[customer]
        if person.created > now:
            return missing("customer", f"No such customer: '{customer.id}'")
        return self._page(person.list_at(now), query, LIST_PATH, self._knobs.page, rendered_holding)

    def _events(self, query: Mapping[str, str], account: str | None) -> Reply:
        events = self._truth.by_account[account].list_at(self._time(), int(query["created[gte]"]))
        return self._page(events, query, EVENTS_PATH, self._knobs.events_page, rendered_event)

    def _page(
        self,
        items: list[Any],
        query: Mapping[str, str],
        path: str,
        most: int,
        rendered: Callable[[Any], dict[str, Any]],
    ) -> Reply:
        """Return what comes after the cursor, ``most`` items at most."""
        after, start = query.get("starting_after"), 0
        if after is not None:
            start = 1 + next((at for at, item in enumerate(items) if item.id == after), -1)
            if start == 0:
                self._history.counts["cursors vanished"] += 1
                return missing("starting_after", f"No such object: '{after}'")
        stop = start + min(most, int(query["limit"]))
        self._history.counts["requests for a further page"] += after is not None
        page = {"object": "list", "url": path, "has_more": stop < len(items)}
        return 200, {**page, "data": [rendered(item) for item in items[start:stop]]}, {}


def missing(param: str, message: str) -> Reply:
    """Return Stripe's way of saying that something is not there."""
    error = {"code": "resource_missing", "param": param, "message": message, "type": "invalid_request_error"}
    return 400, {"error": error}, {}


def rendered_holding(holding: Holding) -> dict[str, Any]:
    """Return an active entitlement as Stripe says it."""
    feature = holding.feature
    return {
        "id": holding.id,
        "object": OBJECT,
        "feature": feature.id,
        "lookup_key": feature.lookup_key,
        "livemode": False,
    }


def rendered_event(event: Event) -> dict[str, Any]:
    """Return an event as Stripe says it."""
    data = {"object": {"object": "entitlements.active_entitlement_summary", "customer": event.customer.id}}
    found = {"id": event.id, "object": "event", "type": NEWS, "created": event.created, "livemode": False, "data": data}
    return found if event.customer.account is None else {**found, "account": event.customer.account}
