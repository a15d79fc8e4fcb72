"""Stripe's surface: the official SDKs work on it unchanged.

What is fully understood is answered from the same snapshots as every check; everything else (``expand``, a parameter
we do not know, an id we have not handed out) is passed on to Stripe within the budget, so that its answer is Stripe's.
"""

import re
from collections.abc import Mapping

import orjson
from aiohttp import web
from cachetools import LRUCache
from multidict import CIMultiDict

from sidecar.api.answers import Headers
from sidecar.api.questions import account_of, customer_id, decoded, wishes_of
from sidecar.core.checker import Checker
from sidecar.core.wishes import Wishes
from sidecar.errors import Malformed, NoAnswer, Refused
from sidecar.model import Customer, Entitlement, Finding
from sidecar.stripe import render
from sidecar.stripe.client import StripeClient

LIST = "/v1/entitlements/active_entitlements"
ONE = "/v1/entitlements/active_entitlements/{id:[^/]+}"

UNDERSTOOD = frozenset({"customer", "limit", "starting_after", "ending_before"})
DEFAULT_LIMIT = 10
PASSED_BACK = ("Content-Type", "Request-Id", "Stripe-Version", "Stripe-Should-Retry", "Stripe-Rate-Limited-Reason")
ID = re.compile(r"[A-Za-z0-9_]{1,255}")

HANDED_OUT = 16_384
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
        return [web.get(LIST, self.list), web.get(ONE, self.retrieve)]

    async def list(self, request: web.Request) -> web.Response:
        """List a page of a customer's active entitlements."""
        asked = query(request)
        if asked is None or not asked.keys() <= UNDERSTOOD or {"starting_after", "ending_before"} <= asked.keys():
            return await self._pass_on(request)
        if "customer" not in asked:
            raise Refused("parameter_missing", "Missing required param: customer.", part="customer")
        customer = Customer(customer_id(asked["customer"]), account_of(request))
        limit = read_limit(asked.get("limit"))
        if limit is None:
            return await self._pass_on(request)
        wishes = wishes_of(request)
        finding = await self._checker.find(customer, wishes)
        if finding.snapshot.unknown is not None:
            raise finding.snapshot.unknown
        items = finding.snapshot.entitlements
        after, before = asked.get("starting_after"), asked.get("ending_before")
        page = render.page(items, livemode=self._client.livemode, limit=limit, after=after, before=before)
        if page is None:
            return await self._pass_on(request)
        for item in page["data"]:
            self._holders[item["id"], customer.account] = customer
        return self._said(page, finding, wishes, request)

    async def retrieve(self, request: web.Request) -> web.Response:
        """Retrieve one active entitlement by its id."""
        id_ = decoded("id", request.rel_url.raw_path.rpartition("/")[2])
        if not ID.fullmatch(id_):
            raise Malformed("id", "must be 1 to 255 letters, digits or underscores")
        customer, wishes = self._holders.get((id_, account_of(request))), wishes_of(request)
        if customer is None or request.rel_url.raw_query_string:
            return await self._pass_on(request)
        try:
            finding = await self._checker.find(customer, wishes)
        except NoAnswer:
            return await self._pass_on(request)
        held = next((item for item in finding.snapshot.entitlements if item.id == id_), None)
        if held is None:
            return await self._pass_on(request)
        return self._said(self._render(held), finding, wishes, request)

    def _render(self, item: Entitlement) -> dict[str, object]:
        return render.entitlement(item, livemode=self._client.livemode)

    def _said(self, body: object, finding: Finding, wishes: Wishes, request: web.Request) -> web.Response:
        headers = self._headers.of(finding, wishes)
        version = request.headers.get("Stripe-Version")
        if version is not None:
            headers["Stripe-Version"] = version
        return web.Response(body=orjson.dumps(body), content_type="application/json", headers=headers)

    async def _pass_on(self, request: web.Request) -> web.Response:
        if wishes_of(request).only_if_cached:
            raise NoAnswer("not_cached", "this can only be answered by Stripe")
        url = request.rel_url
        answer = await self._client.relay(url.raw_path, url.raw_query_string, account_of(request))
        headers = CIMultiDict({name: answer.headers[name] for name in PASSED_BACK if name in answer.headers})
        headers["Cache-Status"] = "entitlement-sidecar; fwd=bypass"
        headers["Cache-Control"] = "no-store"
        return web.Response(body=answer.body, status=answer.status, headers=headers)


def query(request: web.Request) -> Mapping[str, str] | None:
    """Return the query's parameters; None when one is there twice, which is for Stripe to judge."""
    found = {}
    for pair in request.rel_url.raw_query_string.split("&") if request.rel_url.raw_query_string else ():
        name, _, value = pair.partition("=")
        name = decoded("query", name.replace("+", " "))
        if name in found:
            return None
        found[name] = decoded("query", value.replace("+", " "))
    return found


def read_limit(text: str | None) -> int | None:
    """Return the ``limit``; None for one that Stripe refuses, in words that are for Stripe to find."""
    if text is None:
        return DEFAULT_LIMIT
    if not re.fullmatch("[0-9]{1,3}", text) or not 1 <= int(text) <= 100:
        return None
    return int(text)
