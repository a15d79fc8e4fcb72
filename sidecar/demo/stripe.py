"""The state and the switches: what is changed here is what requests see, the events list shows and webhooks tell."""

import base64
import copy
import hashlib
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from sidecar.demo.accounts import Account
from sidecar.demo.events import CUT, UPDATED, notification, snapshot, summary
from sidecar.demo.faults import Fault, Json, Trouble
from sidecar.demo.operations import Seen
from sidecar.demo.webhooks import Endpoint, Webhooks

Clock = Callable[[], float]
Watcher = Callable[[Seen], None]


def _wall_clock() -> float:
    return datetime.now(UTC).timestamp()


class FakeStripe:
    """Stripe's entitlements and events, with a memory, switches to break it, and a record of who asked."""

    def __init__(
        self,
        *,
        key: str = "sk_test_demo",
        permissions: frozenset[str] | None = None,
        clock: Clock | None = None,
        now: Clock | None = None,
    ) -> None:
        self.key = key
        self.permissions = permissions or frozenset()  # of a restricted key, rk_; a secret key may do everything
        self.clock = clock  # for Seen.at; None: the event loop's
        self.now: Clock = now or _wall_clock  # Unix seconds, for events and signatures
        self.visible_after = 0.0  # seconds after which a change shows in the events list
        self.other_mode_customers: set[str] = set()  # strangers here, known to the key of the other mode
        self.on_request: Watcher | None = None
        self.requests: deque[Seen] = deque(maxlen=100_000)
        self.accounts: dict[str | None, Account] = {None: Account(self._object)}
        self.trouble: Trouble | None = None
        self.webhooks = Webhooks(lambda: self.now())  # noqa: PLW0108 -- the clock of then, not of today
        self._made = 0

    @property
    def livemode(self) -> bool:
        return "_live_" in self.key

    @property
    def fault(self) -> Fault | None:
        return self.trouble.fault if self.trouble else None

    # ---- what changes

    def add_customer(self, customer: str, *, account: str | None = None) -> None:
        """Make the customer known, and the connected account; what it holds already stays."""
        self._account(account).customers.setdefault(customer, {})

    def delete_customer(self, customer: str, *, account: str | None = None) -> None:
        with self._announcing(customer, account) as known:
            known.customers.pop(customer, None)

    def grant(self, customer: str, lookup_key: str, *, account: str | None = None, new_feature: bool = False) -> str:
        """
        Entitle the customer to the active feature of this key and give the entitlement's id; twice is once.

        With `new_feature` another feature takes over the key and the old one is archived. Stripe allows that, and a
        customer who held the old one then holds both.
        """
        self.add_customer(customer, account=account)
        with self._announcing(customer, account) as known:
            return known.grant(customer, lookup_key, new_feature=new_feature)

    def revoke(self, customer: str, lookup_key: str, *, account: str | None = None) -> int:
        """Take every entitlement of this key away and say how many there were."""
        with self._announcing(customer, account) as known:
            return known.revoke(customer, lookup_key)

    def held(self, customer: str, *, account: str | None = None) -> list[str]:
        """List the customer's lookup keys, newest first: the truth that answers are compared with."""
        return [e["lookup_key"] for e in self.accounts[account].held(customer)] if account in self.accounts else []

    @contextmanager
    def _announcing(self, customer: str, account: str | None) -> Iterator[Account]:
        """Emit one event if what the customer holds is another afterwards."""
        known = self.accounts.get(account) or Account(self._object)  # a stranger's holds nothing and is not kept
        before = known.held(customer)
        yield known
        after = known.held(customer)
        if after != before:
            object_ = summary(customer, after, livemode=self.livemode)
            self.emit(UPDATED, object_, account=account, previous_attributes={"entitlements": {"data": before[:CUT]}})

    # ---- what is told of it

    def emit(
        self, type_: str, object_: Json, *, account: str | None = None, previous_attributes: Json | None = None
    ) -> Json:
        """Let an event happen now and give it as the events list will show it, with a copy of the object as it is."""
        data = {"object": copy.deepcopy(object_)}
        if previous_attributes is not None:
            data["previous_attributes"] = previous_attributes
        at = self.now()
        event = snapshot(f"evt_1{self.scrambled(23)}", type_, data, at=at, livemode=self.livemode)
        if account is not None:
            event["account"] = account
        self._account(account).events.add(event, at)
        self.webhooks.post(event, account=account)
        return event

    def emit_thin(self, type_: str, *, account: str | None = None, related_object: Json | None = None) -> Json:
        """Send a thin event (v2) to the endpoints that were added with `thin`; no list shows it."""
        event = notification(self._id("evt"), type_, at=self.now(), livemode=self.livemode)
        if account is not None:
            event["context"] = account
        if related_object is not None:
            event["related_object"] = related_object
        self.webhooks.post(event, account=account, thin=True)
        return event

    def add_endpoint(
        self,
        url: str,
        secret: str | Iterable[str],
        *,
        types: Iterable[str] | None = None,
        connect: bool = False,
        thin: bool = False,
    ) -> Endpoint:
        """Post to this URL what happens from now on, of these types or of all; several secrets sign several times."""
        secrets = [secret] if isinstance(secret, str) else list(secret)
        wanted = None if types is None else frozenset(types)
        endpoint = Endpoint(url, secrets, types=wanted, connect=connect, thin=thin)
        self.webhooks.endpoints.append(endpoint)
        return endpoint

    async def delivered(self) -> None:
        """Wait until no webhook is outstanding: each is taken, lost or given up."""
        await self.webhooks.delivered()

    # ---- the switches

    def break_with(
        self,
        fault: Fault | None,
        *,
        after: int = 0,
        times: int | None = None,
        delay: float = 0.0,
        operation: str | None = None,
    ) -> None:
        """Let `after` requests pass, then spoil `times` of them, or all; None mends, and lets go what hangs."""
        if self.trouble:
            self.trouble.mended.set()
        until = math.inf if times is None else after + times
        self.trouble = Trouble(fault, after, until, delay, operation) if fault else None

    def count(self, operation: str | None = None) -> int:
        """Count the requests still remembered."""
        return sum(operation in (None, seen.operation) for seen in self.requests)

    # ---- what ids are made of

    def scrambled(self, length: int) -> str:
        """Count on, in letters and digits that sort by nothing, as Stripe's do."""
        self._made += 1
        return base64.b64encode(hashlib.sha256(b"%d" % self._made).digest(), b"xX")[:length].decode()

    def _id(self, prefix: str) -> str:
        return f"{prefix}_{'' if self.livemode else 'test_'}61{self.scrambled(30)}"

    def _object(self, prefix: str, kind: str, lookup_key: str) -> Json:
        kind = f"entitlements.{kind}"
        return {"id": self._id(prefix), "object": kind, "livemode": self.livemode, "lookup_key": lookup_key}

    def _account(self, account: str | None) -> Account:
        return self.accounts.setdefault(account, Account(self._object))
