"""One complete read of a customer's list, page by page, without I/O.

A read is whole or it is nothing: a snapshot exists only once the last page has arrived, and a page that makes no
progress is an error, never "no more".
"""

from dataclasses import dataclass
from typing import Any, TypeGuard

from sidecar.errors import Broken
from sidecar.model import SEPARATOR, Customer, Entitlement, Feature, Plan, Snapshot, packed
from sidecar.stripe.render import LIST_PATH, OBJECT

PAGE_SIZE = 100
"""The largest ``limit`` that Stripe takes."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list of active entitlements, and the moment just before it was asked for."""

    entitlements: tuple[Entitlement, ...]
    has_more: bool
    asked_at: float


def read_page(page: dict[str, Any], *, livemode: bool, asked_at: float) -> Page:
    """Read a page of Stripe's list.

    :raises Broken: when it is not such a page, or holds objects of the other mode than the key's.
    """
    data, has_more, url = page.get("data"), page.get("has_more"), page.get("url")
    if not isinstance(data, list) or not isinstance(has_more, bool):
        raise Broken("a page without data or has_more")
    if page.get("object") != "list" or not isinstance(url, str) or url.partition("?")[0] != LIST_PATH:
        raise Broken("a list of something else")
    return Page(tuple(read_entitlement(item, livemode=livemode) for item in data), has_more, asked_at)


def read_entitlement(item: Any, *, livemode: bool) -> Entitlement:
    """Read one entitlement, its feature expanded or not.

    :raises Broken: when it is none, or of the other mode.
    """
    if not isinstance(item, dict) or item.get("object") != OBJECT:
        raise Broken("something in the list that is not an entitlement")
    feature = item.get("feature")
    if isinstance(feature, dict):
        feature = feature.get("id")
    id_, lookup_key = item.get("id"), item.get("lookup_key")
    if not (is_text(id_) and is_text(feature) and is_text(lookup_key)):
        raise Broken("an entitlement without id, feature or lookup_key")
    if SEPARATOR in id_:
        raise Broken("an entitlement whose id has a line break in it")
    if item.get("livemode") is not livemode:
        raise Broken(f"an entitlement that is not of the key's mode ({'live' if livemode else 'test'})", retry=False)
    return Entitlement(id_, Feature(feature, lookup_key))


def is_text(value: Any) -> TypeGuard[str]:
    """Tell whether ``value`` can be an id or a lookup key."""
    return isinstance(value, str) and value != ""


class Reading:
    """A read under way. Ask for a page with ``params``, hand it to ``take``, until that returns a snapshot."""

    def __init__(self, customer: Customer, *, max_pages: int) -> None:
        self._customer = customer
        self._taken_at: float | None = None
        self._max_pages = max_pages
        self._pages = 0
        self._read: dict[str, Feature] = {}

    @property
    def params(self) -> dict[str, str]:
        """The parameters of the next page's request."""
        params = {"customer": self._customer.id, "limit": str(PAGE_SIZE)}
        if self._read:
            params["starting_after"] = next(reversed(self._read))
        return params

    def take(self, page: Page) -> Snapshot | None:
        """Add the next page; return the snapshot once it was the last.

        :raises Broken: for a page that makes no progress, or one too many.
        """
        self._pages += 1
        taken_at = self._taken_at = page.asked_at if self._taken_at is None else self._taken_at
        for id_, feature in page.entitlements:
            if id_ in self._read:
                raise Broken("an entitlement came twice in one list", retry=False)
            self._read[id_] = feature
        if not page.has_more:
            return Snapshot(self._customer, taken_at, Plan.of(tuple(self._read.values())), packed(self._read))
        if not page.entitlements:
            raise Broken("an empty page that claims to have more", retry=False)
        if self._pages >= self._max_pages:
            raise Broken(f"the list has more than {self._max_pages} pages", retry=False)
        return None
