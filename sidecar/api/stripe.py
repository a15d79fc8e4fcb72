"""Stripe's surface: the official SDKs work on it unchanged.

What is fully understood is answered from the same snapshots as every check; everything else (``expand``, a parameter
we do not know, an id we have not handed out) is passed on to Stripe within the budget, so that its answer is Stripe's.
"""

import asyncio
import re
from typing import NamedTuple

import orjson
from aiohttp import web
from cachetools import LRUCache
from multidict import CIMultiDict

from sidecar.api.answers import Headers
from sidecar.api.questions import account_of, customer_id, decoded, wishes_of
from sidecar.core.checker import Checker
from sidecar.core.wishes import Wishes
from sidecar.errors import Malformed, NoAnswer, Refused, TimedOut, UnknownCustomer
from sidecar.model import Customer, Finding
from sidecar.stripe import render
from sidecar.stripe.client import StripeClient

ONE = f"{render.LIST_PATH}/{{id:[^/]+}}"


CURSORS = frozenset({"starting_after", "ending_before"})
UNDERSTOOD = CURSORS | {"customer", "limit"}
DEFAULT_LIMIT = "10"
LIMIT = re.compile("[1-9][0-9]?|100")
ID = re.compile(r"[A-Za-z0-9_]{1,255}")

HANDED_OUT = 8_192
"""Entitlement ids that are remembered with their customer: an id is retrieved by whom it was listed to, soon after.
Some 3 MB at the most, where remembering every id would double what a customer costs."""


class Stripe:
    """The handlers."""

    def __init__(self, checker: Checker, client: StripeClient) -> None:
        self._checker = checker
        self._client = client
        self._headers = Headers(checker.freshness)
        self._holders: LRUCache[tuple[str, str | None], Customer] = LRUCache(HANDED_OUT)

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of this surface."""
        return [web.get(render.LIST_PATH, self.list), web.get(ONE, self.retrieve)]

    async def list(self, request: web.Request) -> web.Response:
        """List a page of a customer's active entitlements."""
        asked = understood(request)
        if asked is None:
            return await self._pass_on(request)
        wishes = wishes_of(request)
        finding = await self._checker.find(asked.customer, wishes)
        if finding.snapshot.unknown is not None:
            raise UnknownCustomer(*finding.snapshot.unknown)
        page = render.page(
            finding.snapshot.entitlements,
            livemode=self._client.livemode,
            limit=asked.limit,
            after=asked.after,
            before=asked.before,
        )
        if page is None:
            return await self._pass_on(request)
        for item in page["data"]:
            self._holders[item["id"], asked.customer.account] = asked.customer
        return self._said(page, finding, wishes)

    async def retrieve(self, request: web.Request) -> web.Response:
        """Retrieve one active entitlement by its id."""
        id_ = decoded("id", request.rel_url.raw_path.rpartition("/")[2])
        if not ID.fullmatch(id_):
            raise Malformed("id", "must be 1 to 255 letters, digits or underscores")
        customer, wishes = self._holders.get((id_, account_of(request))), wishes_of(request)
        if customer is None or request.rel_url.raw_query_string:
            return await self._pass_on(request)
        finding = await self._checker.find(customer, wishes)
        held = next((item for item in finding.snapshot.entitlements if item.id == id_), None)
        if held is None:
            return await self._pass_on(request)
        return self._said(render.entitlement(held, livemode=self._client.livemode), finding, wishes)

    def _said(self, body: object, finding: Finding, wishes: Wishes) -> web.Response:
        headers = self._headers.of(finding, wishes)
        headers["Stripe-Version"] = self._client.version
        return web.Response(body=orjson.dumps(body), content_type="application/json", headers=headers)

    async def _pass_on(self, request: web.Request) -> web.Response:
        if wishes_of(request).only_if_cached:
            raise NoAnswer("not_cached", "this can only be answered by Stripe")
        url = request.rel_url
        deadline, account = self._checker.freshness.deadline, account_of(request)
        try:
            async with asyncio.timeout(deadline):
                answer = await self._client.relay(url.raw_path, url.raw_query_string, account, within=deadline)
        except TimeoutError:
            raise TimedOut(f"Stripe did not answer within {deadline:g} s") from None
        headers = CIMultiDict(answer.headers)
        headers["Cache-Status"] = "entitlement-sidecar; fwd=bypass"
        headers["Cache-Control"] = "no-store"
        return web.Response(body=answer.body, status=answer.status, headers=headers)


class Asked(NamedTuple):
    """A list request that can be answered from memory."""

    customer: Customer
    limit: int
    after: str | None
    before: str | None


def understood(request: web.Request) -> Asked | None:
    """Return what a list request asks for; None when that is for Stripe to judge.

    :raises Refused: when there is no customer, or one that cannot be: that must not reach Stripe.
    """
    pairs = query(request)
    asked = dict(pairs)
    if "customer" not in asked:
        raise Refused("parameter_missing", "Missing required param: customer.", part="customer")
    customers = [Customer(customer_id(value), account_of(request)) for name, value in pairs if name == "customer"]
    limit = asked.get("limit", DEFAULT_LIMIT)
    if (
        len(asked) < len(pairs)
        or not asked.keys() <= UNDERSTOOD
        or asked.keys() >= CURSORS
        or not LIMIT.fullmatch(limit)
    ):
        return None
    return Asked(customers[0], int(limit), asked.get("starting_after"), asked.get("ending_before"))


def query(request: web.Request) -> list[tuple[str, str]]:
    """Return the query's parameters in order."""
    text = request.rel_url.raw_query_string.replace("+", " ")
    pairs = [pair.partition("=") for pair in text.split("&") if pair]
    return [(decoded("query", name), decoded("query", value)) for name, _, value in pairs]
