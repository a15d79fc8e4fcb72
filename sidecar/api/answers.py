"""Decisions and lists as JSON and headers.

Ages are rounded up and moments down, so that no answer claims to be younger than it is. ``Age`` is RFC 9111 §5.1,
``Cache-Status`` RFC 9211.
"""

from datetime import UTC, datetime
from hashlib import blake2b
from math import ceil, floor
from typing import Any

import orjson
from aiohttp import web
from multidict import CIMultiDict

from sidecar.core.wishes import Wishes
from sidecar.model import Customer, Decision, Finding, Snapshot, Source
from sidecar.settings import Freshness

NAME = "entitlement-sidecar"


def moment(at: float) -> str:
    """Return Unix seconds as RFC 3339 text in UTC, rounded down to milliseconds."""
    seconds, thousandths = divmod(floor(at * 1000), 1000)
    return f"{datetime.fromtimestamp(seconds, UTC).isoformat()[:19]}.{thousandths:03d}Z"


def rounded_up(age: float) -> float:
    """Return an age in seconds, rounded up to milliseconds."""
    return ceil(age * 1000) / 1000


def who(customer: Customer) -> dict[str, str]:
    """Return the members that name a customer."""
    if customer.account is None:
        return {"customer": customer.id}
    return {"customer": customer.id, "account": customer.account}


def trust(finding: Finding) -> dict[str, Any]:
    """Return the members that say how far an answer may be trusted."""
    return {
        "source": finding.source,
        "age": rounded_up(finding.age),
        "stale": finding.stale,
        "as_of": moment(finding.as_of),
    }


def decision(made: Decision) -> dict[str, Any]:
    """Return a decision's members; with a ``code`` that says why nothing is known, or that the key's mode is wrong."""
    members = {
        **who(made.customer),
        "lookup_key": made.lookup_key,
        "entitled": made.entitled,
        "reason": made.reason,
    }
    if made.finding is not None:
        unknown = made.finding.snapshot.unknown
        wrong_mode = {"code": unknown.code} if unknown is not None and unknown.code == "wrong_mode" else {}
        return members | trust(made.finding) | wrong_mode
    members |= {"source": made.source, "age": None, "stale": False, "as_of": None}
    return members if made.missing is None else members | {"code": made.missing.code}


def entitlements(finding: Finding) -> dict[str, Any]:
    """Return a list's members."""
    held = [
        {"lookup_key": item.feature.lookup_key, "feature": item.feature.id, "id": item.id}
        for item in finding.snapshot.entitlements
    ]
    return {**who(finding.snapshot.customer), "entitlements": held, **trust(finding)}


def etag(snapshot: Snapshot) -> str:
    """Return a validator of the list; equal lists have equal ones in every process, whatever their order and age."""
    held = sorted((item.id, *item.feature) for item in snapshot.entitlements)
    return blake2b(orjson.dumps(held), digest_size=12).hexdigest()


def no_store() -> CIMultiDict[str]:
    """Return the headers of an answer that has no age; no other cache may keep any of our answers."""
    return CIMultiDict({"Cache-Control": "no-store"})


class Headers:
    """The headers that go with an answer."""

    def __init__(self, freshness: Freshness) -> None:
        self._freshness = freshness

    def of(self, finding: Finding | None, wishes: Wishes) -> CIMultiDict[str]:
        """Return headers that say how an answer was come by and how old it is; None is a policy's answer."""
        headers = no_store()
        if finding is None:
            headers["Cache-Status"] = f"{NAME}; fwd=miss; detail=policy"
            return headers
        age = ceil(finding.age)
        known = finding.snapshot.unknown is None
        ttl = floor(self._freshness.fresh_for if known else self._freshness.unknown_for) - age
        if finding.source is Source.UPSTREAM:
            how = f"fwd={'miss' if wishes.max_age is None else 'request'}; stored"
        else:
            how = "hit"
        headers["Age"] = str(age)
        headers["Cache-Status"] = f"{NAME}; {how}; ttl={ttl}"
        return headers


def json(members: dict[str, Any], headers: CIMultiDict[str] | None = None, *, status: int = 200) -> web.Response:
    """Return a JSON response."""
    return web.Response(body=orjson.dumps(members), content_type="application/json", headers=headers, status=status)
