"""Our own surface: check, list, refresh, explain. Batches are in ``batches``."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

from aiohttp import web

from sidecar.api import answers, problems
from sidecar.api.questions import asked_about, asked_for, parameters, patience, wishes_of
from sidecar.api.shortcuts import Lasting, Said, Shortcut
from sidecar.core.heart import Heart
from sidecar.core.wishes import Wishes
from sidecar.errors import Malformed
from sidecar.kit.tally import Count
from sidecar.model import CUSTOMER_ID, Customer, Finding, Flight
from sidecar.wire import Heads

ONE = "/v1/customers/{customer:[^/]*}/entitlements/{lookup_key:[^/]*}"
ALL = "/v1/customers/{customer:[^/]*}/entitlements"
REFRESH = "/v1/customers/{customer:[^/]*}/refresh"
EXPLAIN = "/v1/customers/{customer:[^/]*}/explain"


class Checks:
    """The handlers."""

    def __init__(self, heart: Heart) -> None:
        checker = heart.checker
        self._checker = checker
        self._refresher = heart.refresher
        self._watermarks = heart.watermarks
        self._headers = answers.Headers(checker.freshness)
        self._heads = Heads(self._headers.of_hit)
        self._heads_of_unknown = Heads(partial(self._headers.of_hit, known=False))
        self._moments = answers.Moments()

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of this surface."""
        return [
            web.get(ONE, self.one),
            web.get(ALL, self.all),
            web.post(REFRESH, self.refresh),
            web.get(EXPLAIN, self.explain),
        ]

    def shortcuts(self, count: Callable[[str], Count]) -> list[Shortcut]:
        """Return what of this surface may need nothing but memory; ``count`` gives what counts the answers of a route."""
        path = f"/v1/customers/({CUSTOMER_ID.pattern})/entitlements"
        return [
            Shortcut(f"{path}/([A-Za-z0-9._~-]{{1,200}})", count(canonical(ONE)), self.hit_one),
            Shortcut(path, count(canonical(ALL)), self.hit_all),
        ]

    def hit_one(self, match: re.Match[str], said: Said) -> Lasting | None:
        """Answer one check out of memory."""
        customer, lookup_key = match.groups()
        hit = self._checker.hit(customer, lookup_key) if said.is_nothing else None
        if hit is None:
            made = self._checker.answer(Customer(customer, said.account), lookup_key, said.wishes)
            finding = None if made is None else made.finding
            return None if made is None or finding is None else self._hit(finding, -1.0, answers.decision(made))
        entitled, (_, as_of, age, oldest) = hit
        verdict = answers.VERDICTS[entitled]
        before = f'{{"customer":"{customer}","lookup_key":"{lookup_key}",{verdict},"source":"memory","age":'
        after = f',"stale":false,"as_of":"{self._moments[as_of]}"}}'
        told = self._checker.hits[entitled]
        return Lasting(self._heads, as_of, age, oldest, before.encode(), after.encode(), told=told)

    def hit_all(self, match: re.Match[str], said: Said) -> Lasting | None:
        """List a customer's entitlements out of memory."""
        seen = self._checker.look(Customer(match[1], said.account), said.wishes)
        if seen is None:
            return None
        finding, oldest = seen
        self._checker.ages.add(finding.age)
        etag = f'ETag: W/"{answers.etag(finding.snapshot)}"\r\n'
        return self._hit(finding, oldest, answers.entitlements(finding), etag)

    def _hit(self, finding: Finding, oldest: float, members: dict[str, Any], fields: str = "") -> Lasting:
        heads = self._heads if finding.snapshot.unknown is None else self._heads_of_unknown
        return Lasting(heads, finding.as_of, finding.age, oldest, *answers.parted(members), fields)

    async def one(self, request: web.Request) -> web.Response:
        """Answer one check, with ``?wait=`` once the customer is entitled or that much time has passed."""
        customer, lookup_key, said = asked_about(request), asked_for(request), parameters(request, "default", "wait")
        wishes = wishes_of(request, said.get("default"))
        made = await self._checker.check(customer, lookup_key, wishes, wait=patience(said.get("wait", "0")))
        if made.entitled is None and made.missing is not None:
            return problems.from_error(made.missing)
        return answers.json(answers.decision(made), self._headers.of(made.finding, wishes))

    async def all(self, request: web.Request) -> web.Response:
        """List a customer's entitlements; 304 when they are those that the caller has (RFC 9110 §13.1.2)."""
        parameters(request)
        wishes = wishes_of(request)
        return self._list(request, await self._checker.find(asked_about(request), wishes), wishes)

    async def refresh(self, request: web.Request) -> web.Response:
        """Ask Stripe again and list what it says; with ``?wait=0``, only see to it that it is asked."""
        customer, wait = asked_about(request), parameters(request, "wait").get("wait", "1")
        if wait not in ("0", "1"):
            raise Malformed("wait", "must be 0 or 1")
        if wait == "0":
            self._refresher.renew_soon(customer)
            return answers.json({**answers.who(customer), "refreshing": True}, answers.no_store(), status=202)
        return self._list(request, await self._checker.refresh(customer), REFRESHED)

    async def explain(self, request: web.Request) -> web.Response:
        """Say where this customer's answers come from."""
        parameters(request)
        customer = asked_about(request)
        state, finding = self._checker.state(customer)
        policies = self._checker.policies.by_glob
        watermark = self._watermarks.until(customer.account)
        members = {
            **answers.who(customer),
            "state": state,
            "snapshot": None if finding is None else explain_finding(finding),
            "watermark": None if watermark is None else answers.moment(watermark),
            "flying": self._refresher.is_flying(customer),
            "last_flight": explain_flight(self._refresher.last_flight(customer)),
            "policy": policies,
            "stale_for": self._checker.freshness.stale_for_by_glob,
        }
        return answers.json(members, answers.no_store())

    def _list(self, request: web.Request, finding: Finding, wishes: Wishes) -> web.Response:
        headers = self._headers.of(finding, wishes)
        unknown = finding.snapshot.unknown
        if unknown is not None:
            members = {**answers.who(finding.snapshot.customer), **answers.trust(finding)}
            response = problems.problem(404, unknown.code, unknown.message, **members)
            response.headers.update(headers)
            return response
        tag = answers.etag(finding.snapshot)
        headers["ETag"] = f'W/"{tag}"'  # weak: the body also says how old it is
        known = request.if_none_match if request.method in ("GET", "HEAD") else None
        if known is not None and any(etag.value in (tag, "*") for etag in known):
            return web.Response(status=304, headers=headers)
        return answers.json(answers.entitlements(finding), headers)


def canonical(path: str) -> str:
    """Return a route's template, as aiohttp calls it: without the patterns of its parts."""
    return re.sub(":[^}]*}", "}", path)


REFRESHED = Wishes(max_age=0.0)


def explain_finding(finding: Finding) -> dict[str, Any]:
    """Return what is in memory, what vouches for it (its own reading, or the feed), and the last news since."""
    snapshot = finding.snapshot
    return {
        "as_of": answers.moment(finding.as_of),
        "age": answers.rounded_up(finding.age),
        "taken_at": answers.moment(snapshot.taken_at),
        "verified_by": "feed" if finding.as_of > snapshot.taken_at else "list",
        "news_at": None if snapshot.dirty is None else answers.moment(snapshot.dirty.heard_at),
        "entitlements": len(snapshot.ids),
        "lookup_keys": sorted(snapshot.plan.lookup_keys),
        "unknown": None if snapshot.unknown is None else snapshot.unknown.message,
    }


def explain_flight(flight: Flight | None) -> dict[str, Any] | None:
    """Return the log of a flight, with the ids under which Stripe logs its requests."""
    if flight is None:
        return None
    return {
        "took_off": answers.moment(flight.took_off),
        "landed": None if flight.landed is None else answers.moment(flight.landed),
        "outcome": flight.outcome,
        "detail": flight.detail,
        "pages": flight.pages,
        "requests": [
            {"at": answers.moment(sent.asked_at), "outcome": sent.outcome, "request_id": sent.request_id}
            for sent in flight.exchanges
        ],
    }
