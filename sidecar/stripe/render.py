"""The same objects the other way: what Stripe would say, from a snapshot."""

from collections.abc import Sequence
from typing import Any

from sidecar.model import Entitlement

LIST_PATH = "/v1/entitlements/active_entitlements"
"""Must be exactly Stripe's: the official Python SDK asks for the next page at the ``url`` of the answer."""

OBJECT = "entitlements.active_entitlement"


def entitlement(item: Entitlement, *, livemode: bool) -> dict[str, Any]:
    """Return one active entitlement as Stripe says it."""
    return {
        "id": item.id,
        "object": OBJECT,
        "feature": item.feature.id,
        "livemode": livemode,
        "lookup_key": item.feature.lookup_key,
    }


def page(
    items: Sequence[Entitlement], *, livemode: bool, limit: int, after: str | None = None, before: str | None = None
) -> dict[str, Any] | None:
    """Return the page of up to ``limit`` items behind the cursor ``after`` or in front of ``before``.

    None when the cursor is not among ``items``. Before a cursor comes what is nearest to it, still in list order, and
    ``has_more`` speaks of what lies further in the same direction.
    """
    start, stop = 0, len(items)
    cursor = after if after is not None else before
    if cursor is not None:
        at = next((i for i, item in enumerate(items) if item.id == cursor), None)
        if at is None:
            return None
        start, stop = (at + 1, stop) if after is not None else (0, at)
    has_more = stop - start > limit
    start, stop = (max(start, stop - limit), stop) if before is not None else (start, min(stop, start + limit))
    data = [entitlement(item, livemode=livemode) for item in items[start:stop]]
    return {"object": "list", "data": data, "has_more": has_more, "url": LIST_PATH}


def error(
    message: str, *, type_: str = "invalid_request_error", code: str | None = None, param: str | None = None
) -> dict[str, Any]:
    """Return an error body as Stripe says it; v1 has no types for authentication or rate limiting."""
    found: dict[str, Any] = {"message": message, "type": type_}
    if code is not None:
        found["code"] = code
        found["doc_url"] = f"https://stripe.com/docs/error-codes/{code.replace('_', '-')}"
    if param is not None:
        found["param"] = param
    return {"error": found}
