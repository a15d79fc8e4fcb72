"""Decisions and lists as JSON and headers.

Ages are rounded up and moments down, so that no answer claims to be younger than it is. ``Age`` is RFC 9111 §5.1,
``Cache-Status`` RFC 9211.
"""

from datetime import UTC, datetime
from functools import lru_cache
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

VERDICTS = ('"entitled":false,"reason":"not_entitled"', '"entitled":true,"reason":"entitled"')
"""What a list that is known says of a key, as JSON: not there, there."""


def moment(at: float) -> str:
    """Return Unix seconds as RFC 3339 text in UTC, rounded down to milliseconds."""
    seconds, thousandths = divmod(floor(at * 1000), 1000)
    return f"{second(seconds)}.{thousandths:03d}Z"


@lru_cache(maxsize=1024)
def second(at: int) -> str:
    """Return whole Unix seconds as text: many lists are known to be true as of moments of one second."""
    return datetime.fromtimestamp(at, UTC).isoformat()[:19]


def rounded_up(age: float) -> float:
    """Return an age in seconds, rounded up to milliseconds."""
    return ceil(age * 1000) / 1000


class Moments(dict[float, str]):
    """Moments as text, made once each: many lists are known to be true as of the same moment, the watermark."""

    def __missing__(self, at: float) -> str:
        if len(self) >= MOST_MOMENTS:
            self.clear()
        text = self[at] = moment(at)
        return text


MOST_MOMENTS = 1024


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


def parted(members: dict[str, Any]) -> tuple[bytes, bytes]:
    """Return the JSON of ``members`` without the age's value: what is before that, and what after."""
    before, name, rest = orjson.dumps(members).partition(b'"age":')  # in a string, the quotes would be escaped
    return before + name, rest[rest.index(b",") :]


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
        self._fresh_for, self._unknown_for = floor(freshness.fresh_for), floor(freshness.unknown_for)

    def of(self, finding: Finding | None, wishes: Wishes) -> CIMultiDict[str]:
        """Return headers that say how an answer was come by and how old it is; None is a policy's answer."""
        headers = no_store()
        if finding is None:
            headers["Cache-Status"] = f"{NAME}; fwd=miss; detail=policy"
            return headers
        how = "hit"
        if finding.source is Source.UPSTREAM:
            how = f"fwd={'miss' if wishes.max_age is None else 'request'}; stored"
        known = finding.snapshot.unknown is None
        headers.update(aged(ceil(finding.age), how, self._fresh_for if known else self._unknown_for))
        return headers

    def of_hit(self, age: int, *, known: bool = True) -> CIMultiDict[str]:
        """Return headers of an answer out of memory that is ``age`` seconds old."""
        headers = no_store()
        headers.update(aged(age, "hit", self._fresh_for if known else self._unknown_for))
        return headers


def aged(age: int, how: str, fresh_for: int) -> dict[str, str]:
    """Return ``Age``, and ``Cache-Status`` with the time that is left of ``fresh_for``; all in seconds."""
    return {"Age": str(age), "Cache-Status": f"{NAME}; {how}; ttl={fresh_for - age}"}


def json(members: dict[str, Any], headers: CIMultiDict[str] | None = None, *, status: int = 200) -> web.Response:
    """Return a JSON response."""
    return web.Response(body=orjson.dumps(members), content_type="application/json", headers=headers, status=status)
