"""
Every change as an event: how one is written, how long it is kept, and the list that `GET /v1/events` cuts from them.

An event is a snapshot of an object after the change. That of a customer's entitlements is cut at ten and has no id, so
it says who has changed rather than what is held. A thin event (v2) is less still: what kind of thing has happened.
"""

import operator
import re
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from sidecar.demo.faults import Json, Refusal
from sidecar.demo.operations import EVENTS, VERSION
from sidecar.demo.pages import Params, check_exclusive, integer, is_true, page, unknown

UPDATED = "entitlements.active_entitlement_summary.updated"
CUT = 10  # entitlements in an event at most
KEPT = 30 * 86400.0  # seconds
MOST_TYPES = 20
COMPARISONS: dict[str, Callable[[int, int], bool]] = {
    "created": operator.eq,
    "created[gt]": operator.gt,
    "created[gte]": operator.ge,
    "created[lt]": operator.lt,
    "created[lte]": operator.le,
}


def summary(customer: str, held: list[Json], *, livemode: bool) -> Json:
    """Write what an event about entitlements is about; Stripe has no other use for this object."""
    return {
        "object": "entitlements.active_entitlement_summary",
        "customer": customer,
        "entitlements": {
            "object": "list",
            "data": held[:CUT],
            "has_more": len(held) > CUT,
            "url": f"/v1/customer/{customer}/entitlements",  # singular, as Stripe writes it
        },
        "livemode": livemode,
    }


def snapshot(id_: str, type_: str, data: Json, *, at: float, livemode: bool) -> Json:
    """Write an event that happened at this Unix time; nobody waits for it yet, and no request caused it."""
    return {
        "id": id_,
        "object": "event",
        "api_version": VERSION,
        "created": int(at),
        "data": data,
        "livemode": livemode,
        "pending_webhooks": 0,
        "request": {"id": None, "idempotency_key": None},
        "type": type_,
    }


def notification(id_: str, type_: str, *, at: float, livemode: bool) -> Json:
    """Write a thin event, whose time is a text."""
    created = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {"id": id_, "object": "v2.core.event", "type": type_, "livemode": livemode, "created": created}


class _Occurrence(NamedTuple):
    at: float  # Unix seconds with their fraction, which `created` lacks
    event: Json


class Events:
    """What has happened in one account within 30 days, oldest first."""

    def __init__(self) -> None:
        self._occurrences: deque[_Occurrence] = deque(maxlen=100_000)

    def __len__(self) -> int:
        return len(self._occurrences)

    def add(self, event: Json, at: float) -> None:
        while self._occurrences and self._occurrences[0].at < at - KEPT:
            self._occurrences.popleft()
        self._occurrences.append(_Occurrence(at, event))

    def known(self, now: float) -> Mapping[str, Json]:
        """Give by id what is not too old, shown in the list already or not."""
        return {event["id"]: event for at, event in self._occurrences if at >= now - KEPT}

    def page(self, params: Params, now: float, visible_after: float) -> Json:
        """Cut a page from the list, where an event shows so many seconds after the change."""
        matches = _matcher(params)
        shown = {event["id"] for at, event in self._occurrences if at + visible_after <= now}
        return page(EVENTS, "event", self.known(now), params, lambda event: event["id"] in shown and matches(event))


def _matcher(params: Params) -> Callable[[Json], bool]:
    types, pattern = _types(params), re.compile(".*".join(map(re.escape, params.get("type", "*").split("*"))))
    bounds = [(_comparison(name), integer(params, name)) for name in params if name.startswith("created")]
    delivered = is_true(params, "delivery_success") if "delivery_success" in params else None

    def matches(event: Json) -> bool:
        return (
            (not types or event["type"] in types)
            and pattern.fullmatch(event["type"]) is not None
            and all(compare(event["created"], bound) for compare, bound in bounds)
            and delivered in (None, event["pending_webhooks"] == 0)
        )

    return matches


def _types(params: Params) -> set[str]:
    types = {name: value for name, value in params.items() if name.startswith("types")}
    check_exclusive([name for name, given in (("type", "type" in params), ("types", types)) if given])
    if "types" in types:
        raise Refusal(400, "Invalid array", param="types")
    if len(types) > MOST_TYPES:
        raise Refusal(400, f"You may only specify up to {MOST_TYPES} types.", param="types")
    return set(types.values())


def _comparison(name: str) -> Callable[[int, int], bool]:
    if name not in COMPARISONS:
        raise unknown(name)
    return COMPARISONS[name]
