"""Stripe's surface: the official SDKs work on it unchanged.

What is fully understood is answered from the same snapshots as every check; everything else (``expand``, a parameter
we do not know, an id we have not handed out) is passed on to Stripe within the budget, so that its answer is Stripe's.
"""

import asyncio
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import orjson
from aiohttp import web
from cachetools import LRUCache
from multidict import CIMultiDict

from sidecar.api.answers import Headers
from sidecar.api.questions import account_of, customer_id, decoded, wishes_of
from sidecar.api.shortcuts import Lasting, Said, Shortcut
from sidecar.core.checker import Checker
from sidecar.core.wishes import Wishes
from sidecar.errors import Malformed, NoAnswer, Refused, TimedOut, UnknownCustomer
from sidecar.kit.tally import Count
from sidecar.model import Customer, Finding, Snapshot
from sidecar.stripe import render
from sidecar.stripe.client import StripeClient
from sidecar.wire import Heads

ONE = f"{render.LIST_PATH}/{{id:[^/]+}}"


CURSORS = frozenset({"starting_after", "ending_before"})
UNDERSTOOD = CURSORS | {"customer", "limit"}
DEFAULT_LIMIT = "10"
LIMIT = re.compile("[1-9][0-9]?|100")
ID = re.compile(r"[A-Za-z0-9_]{1,255}")

HANDED_OUT = 8_192
"""Entitlement ids that are remembered with their customer: an id is retrieved by whom it was listed to, soon after.
Some 3 MB at the most, where remembering every id would double what a customer costs."""


class Asked(NamedTuple):
    """A list request that can be answered from memory."""

    customer: Customer
    limit: int
    after: str | None
    before: str | None


class Stripe:
    """The handlers."""

    def __init__(self, checker: Checker, client: StripeClient) -> None:
        self._checker = checker
        self._client = client
        self._headers = Headers(checker.freshness)
        self._heads = Heads(lambda age: {**self._headers.of_hit(age), "Stripe-Version": client.version})
        self._holders: LRUCache[tuple[str, str | None], Customer] = LRUCache(HANDED_OUT)

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of this surface."""
        return [web.get(render.LIST_PATH, self.list), web.get(ONE, self.retrieve)]

    def shortcuts(self, count: Callable[[str], Count]) -> list[Shortcut]:
        """Return what of this surface may need nothing but memory; ``count`` gives what counts the answers of a route."""
        return [Shortcut(f"{render.LIST_PATH}[?]([A-Za-z0-9_=&]+)", count(render.LIST_PATH), self.hit)]

    def hit(self, match: re.Match[str], said: Said) -> Lasting | None:
        """List a page out of memory."""
        asked = understood(match[1], said.account)
        held = None if asked is None else self._checker.held(asked.customer)
        if asked is None or held is None or held.unknown is not None:
            return None
        page = self._page(asked, held)
        seen = None if page is None else self._checker.look(asked.customer, said.wishes)  # which may begin a flight
        if seen is None:
            return None
        finding, oldest = seen
        self._checker.ages.add(finding.age)
        return Lasting(self._heads, finding.as_of, finding.age, oldest, orjson.dumps(page))

    async def list(self, request: web.Request) -> web.Response:
        """List a page of a customer's active entitlements."""
        asked = understood(request.rel_url.raw_query_string, account_of(request))
        if asked is None:
            return await self._pass_on(request)
        wishes = wishes_of(request)
        finding = await self._checker.find(asked.customer, wishes)
        if finding.snapshot.unknown is not None:
            raise UnknownCustomer(*finding.snapshot.unknown)
        page = self._page(asked, finding.snapshot)
        return await self._pass_on(request) if page is None else self._said(page, finding, wishes)

    def _page(self, asked: Asked, snapshot: Snapshot) -> dict[str, Any] | None:
        """Return the page that is asked for, and remember whose entitlements are on it; None without its cursor."""
        _, limit, after, before = asked
        items, livemode = snapshot.entitlements, self._client.livemode
        page = render.page(items, livemode=livemode, limit=limit, after=after, before=before)
        for item in [] if page is None else page["data"]:
            self._holders[item["id"], asked.customer.account] = asked.customer
        return page

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


def understood(query: str, account: str | None) -> Asked | None:
    """Return what a list request asks for with its ``query``; None when that is for Stripe to judge.

    :raises Refused: when there is no customer, or one that cannot be: that must not reach Stripe.
    """
    pairs = parameters(query)
    asked = dict(pairs)
    if "customer" not in asked:
        raise Refused("parameter_missing", "Missing required param: customer.", part="customer")
    customers = [Customer(customer_id(value), account) for name, value in pairs if name == "customer"]
    limit = asked.get("limit", DEFAULT_LIMIT)
    if (
        len(asked) < len(pairs)
        or not asked.keys() <= UNDERSTOOD
        or asked.keys() >= CURSORS
        or not LIMIT.fullmatch(limit)
    ):
        return None
    return Asked(customers[0], int(limit), asked.get("starting_after"), asked.get("ending_before"))


def parameters(query: str) -> list[tuple[str, str]]:
    """Return the parameters of ``query`` in order."""
    pairs = [pair.partition("=") for pair in query.replace("+", " ").split("&") if pair]
    return [(decoded("query", name), decoded("query", value)) for name, _, value in pairs]
