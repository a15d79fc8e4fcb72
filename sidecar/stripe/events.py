"""News of customers whose entitlements changed, as Stripe's events tell them, without I/O.

An event is a signal, never the truth: its own list is frozen at the version of its time and cut at ten entitlements,
and events come twice, late and in any order (docs.stripe.com/webhooks). Only whom it names is read; the list is asked
for anew.
"""

from math import floor
from typing import Any, NamedTuple

from sidecar.errors import Broken, Untold
from sidecar.model import ACCOUNT_ID, CUSTOMER_ID, Customer
from sidecar.stripe.pages import PAGE_SIZE, is_text

NEWS = "entitlements.active_entitlement_summary.updated"
"""The one type of event about a customer's entitlements (docs.stripe.com/billing/entitlements)."""

EVENTS_PATH = "/v1/events"


class Event(NamedTuple):
    """One event. ``created`` is in Unix seconds, whole ones as Stripe says them.

    ``customer`` is whom news is about, None for other events, and for a customer whose id nobody can ask about.
    """

    id: str
    type: str
    created: float
    livemode: bool
    customer: Customer | None


class Listed(NamedTuple):
    """A page of the list of events as it came, when it was asked for, and the most that our clock is ahead, in seconds."""

    page: dict[str, Any]
    asked_at: float
    ahead: float = 0.0


def read_event(item: Any) -> Event:
    """Read one event; only a type of ``NEWS`` has to name a customer.

    :raises Untold: naming what is missing; asking again does not change it.
    """
    if not isinstance(item, dict) or item.get("object") != "event":
        raise Untold("something that is not an event")
    id_, type_, created, livemode = item.get("id"), item.get("type"), item.get("created"), item.get("livemode")
    if not is_text(id_) or not is_text(type_):
        raise Untold("an event without id or type")
    if not isinstance(created, int) or isinstance(created, bool) or not isinstance(livemode, bool):
        raise Untold("an event without created or livemode")
    return Event(id_, type_, float(created), livemode, customer_in(item) if type_ == NEWS else None)


def customer_in(item: dict[str, Any]) -> Customer | None:
    """Return whom news is about, who may be expanded; None for an id that no question about it could have.

    :raises Untold: when it names nobody.
    """
    data = item.get("data")
    summary = data.get("object") if isinstance(data, dict) else None
    customer = summary.get("customer") if isinstance(summary, dict) else None
    if isinstance(customer, dict):
        customer = customer.get("id")
    if not is_text(customer):
        raise Untold("news without data.object.customer")
    return Customer(customer, account_in(item)) if CUSTOMER_ID.fullmatch(customer) else None


def account_in(item: dict[str, Any]) -> str | None:
    """Return the connected account whose event this is. ``context`` is not read, as ``Stripe-Context`` is not taken.

    :raises Untold: for an ``account`` that cannot be one; the customer of that id in ours is somebody else.
    """
    account = item.get("account")
    if account is None:
        return None
    if not isinstance(account, str) or not ACCOUNT_ID.fullmatch(account):
        raise Untold("news with an account that is none")
    return account


class Sweep:
    """One complete read of the list of news since a moment. Ask with ``params``, hand the page to ``take``.

    ``untold`` is there once an event could not be read: somebody changed, and it is not known who.

    ``since`` is in Unix seconds; Stripe counts whole ones, so the second that it falls into is read too. ``account``
    is the connected account whose list is read: what names none of its own happened there. Pages come newest first,
    and when an event becomes visible is not documented, so sweeps have to overlap.
    """

    def __init__(self, since: float, *, livemode: bool, account: str | None = None, max_pages: int) -> None:
        self._since = since
        self._livemode = livemode
        self._account = account
        self._max_pages = max_pages
        self._pages = 0
        self._seen: dict[str, None] = {}
        self.is_complete = False
        self.untold: Untold | None = None

    @property
    def params(self) -> dict[str, str]:
        """The parameters of the next page's request."""
        params = {"type": NEWS, "created[gte]": str(max(0, floor(self._since))), "limit": str(PAGE_SIZE)}
        if self._seen:
            params["starting_after"] = next(reversed(self._seen))
        return params

    def take(self, page: dict[str, Any]) -> list[Event]:
        """Add the next page and return its news; events of other types, in spite of ``type``, only count as progress.

        :raises Broken: for what is no page of events, makes no progress, or is of the other mode than the key's.
        :raises Untold: when there is more behind the last page that may be read.
        """
        data, has_more = read_list(page)
        self._pages += 1
        events = [self._add(event) for event in map(self._read, data) if event is not None]
        self.is_complete = not has_more
        if has_more and not data:
            raise Broken("an empty page that claims to have more", retry=False)
        if has_more and self._pages >= self._max_pages:
            raise Untold(f"the list of events has more than {self._max_pages} pages")
        return [event for event in events if event.type == NEWS]

    def _read(self, item: Any) -> Event | None:
        """Read one event; what cannot be read is kept in ``untold``, and does not hold up the others."""
        try:
            return read_event(item)
        except Untold as untold:
            self.untold = untold
            return None

    def _add(self, event: Event) -> Event:
        if event.livemode is not self._livemode:
            mode = "live" if self._livemode else "test"
            raise Broken(f"an event that is not of the key's mode ({mode})", retry=False)
        if event.id in self._seen:
            raise Broken("an event came twice in one list", retry=False)
        self._seen[event.id] = None
        if event.customer is None or event.customer.account is not None:
            return event
        return event._replace(customer=Customer(event.customer.id, self._account))


def read_list(page: dict[str, Any]) -> tuple[list[Any], bool]:
    """Return the items of a page of events, and whether there are more.

    :raises Broken: when it is not such a page.
    """
    data, has_more, url = page.get("data"), page.get("has_more"), page.get("url")
    if not isinstance(data, list) or not isinstance(has_more, bool):
        raise Broken("a page without data or has_more")
    if page.get("object") != "list" or not isinstance(url, str) or url.partition("?")[0] != EVENTS_PATH:
        raise Broken("a list of something else")
    return data, has_more
