"""What is asked of Stripe: complete lists, pages of events, and whatever a caller wants passed on.

Per page: attempts × budget (limiter) × breaker × one request (transport). While the breaker lets nothing through, no
token is waited for.
"""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from math import inf
from random import Random
from typing import TypeVar

from yarl import URL

from sidecar.errors import (
    Broken,
    CircuitOpen,
    CursorVanished,
    KeyRejected,
    RequestRejected,
    SidecarError,
    Throttled,
    UnknownCustomer,
    Unreachable,
    UpstreamError,
)
from sidecar.kit.breaker import Breaker, Passage, State
from sidecar.kit.clock import Clock
from sidecar.kit.limiter import Limiter, Urgency
from sidecar.kit.spans import Spans, no_span
from sidecar.kit.tally import Tally
from sidecar.model import Customer, Exchange, Flight, Snapshot, Unknown
from sidecar.stripe.answers import (
    Answer,
    date_in,
    read_answer,
    refusal,
    request_id_in,
    says_nothing_of_stripe,
    shows_that_stripe_fails,
)
from sidecar.stripe.events import EVENTS_PATH, Listed
from sidecar.stripe.health import Health
from sidecar.stripe.key import ApiKey
from sidecar.stripe.manners import QUEUE, Ask, Manners
from sidecar.stripe.pages import Page, Reading, read_page
from sidecar.stripe.render import LIST_PATH
from sidecar.stripe.transport import Transport

T = TypeVar("T")

log = logging.getLogger(__name__)

STATUSES = ("200", "400", "401", "403", "404", "409", "424", "429", "500", "502", "503", "504")
OUTCOMES = (*STATUSES, "other", "broken", "unreachable")
OPERATIONS = ("list", "events", "relay")
REASONS = (
    "global-rate",
    "global-concurrency",
    "endpoint-rate",
    "endpoint-concurrency",
    "resource-specific",
    "rate_limit",
)
"""What Stripe's rate limiters are called, in ``Stripe-Rate-Limited-Reason``, and in a 400's ``code`` formerly."""
PASSED_ON = ("Content-Type", "Stripe-Version", "Stripe-Should-Retry", "Stripe-Rate-Limited-Reason")
PRINTABLE = re.compile("[ -~]+")
WITHOUT = "until it works, what is not in memory is answered by policy"

NOBODY = "cus_entitlement_sidecar_start_check"
"""A customer that cannot exist: Stripe's ids have letters and digits only after ``cus_``. It shows in Stripe's log."""


class StripeClient:
    """Read from Stripe's API within the budget; each operation has a breaker, for each can fail alone."""

    def __init__(
        self,
        transport: Transport,
        key: ApiKey,
        manners: Manners,
        *,
        limiter: Limiter,
        clock: Clock,
    ) -> None:
        self.requests = {(operation, outcome): 0 for operation in OPERATIONS for outcome in OUTCOMES}
        self.durations = Tally((0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5, 10))
        self.health = Health(clock, without=WITHOUT)
        self._chance = Random(manners.seed).random  # noqa: S311 -- no secret
        self.breakers = {name: Breaker(f"{name} at Stripe", clock=clock, jitter=self._chance) for name in OPERATIONS}
        self.livemode = key.livemode
        self.version = manners.version
        self.span: Spans = no_span
        self._transport = transport
        self._key = key
        self._manners = manners
        self._limiter = limiter
        self._clock = clock

    async def fetch(self, customer: Customer, flight: Flight) -> Snapshot:
        """Read the complete list of ``customer``, writing the flight's log.

        :raises UpstreamError: when no complete list could be read.
        """
        with self.span("fetch") as span:
            try:
                snapshot = await self._fetch(customer, flight)
            finally:
                span.attributes["pages"] = flight.pages
            span.attributes["outcome"] = "landed" if snapshot.unknown is None else snapshot.unknown.code
            return snapshot

    async def _fetch(self, customer: Customer, flight: Flight) -> Snapshot:
        """Read the list, however often it takes.

        A cursor that vanished starts the whole read again, a few times (Stripe: ``resource_missing`` with param
        ``starting_after``).
        """
        last: CursorVanished | None = None
        for _ in range(self._manners.restarts + 1):
            reading = Reading(customer, max_pages=self._manners.max_pages)
            try:
                return await self._read(reading, customer, flight)
            except CursorVanished as vanished:
                last = vanished
            except UnknownCustomer as unknown:
                if unknown.code == "wrong_mode":
                    log.warning("the API key is of another mode than a customer it is asked about: %s", unknown.message)
                return Snapshot(
                    customer, flight.exchanges[-1].asked_at, unknown=Unknown(unknown.status, unknown.message)
                )  # frames are heavy
        raise Broken(f"the list changed during each of {self._manners.restarts + 1} reads of it: {last}") from None

    async def _read(self, reading: Reading, customer: Customer, flight: Flight) -> Snapshot:
        snapshot = None
        while snapshot is None:
            page = await self._page(reading.params, customer.account, flight)
            flight.pages += 1
            snapshot = reading.take(page)
        return snapshot

    async def _page(self, params: Mapping[str, str], account: str | None, flight: Flight) -> Page:
        url = URL(self._manners.base + LIST_PATH).with_query(params)
        return await self._patiently(Ask("list", url, account, flight), self._read_page)

    def take_spare(self) -> bool:
        """Take a token for a list that nobody waits for, if one is left over and would not be in vain."""
        return self.breakers["list"].lets_through and self._limiter.take_spare()

    async def events(self, params: Mapping[str, str], account: str | None) -> Listed:
        """Return one page of Stripe's list of events.

        It waits for the budget however long that takes: one request here spares many, and who is refused has no turn.

        :raises UpstreamError: when it could not be read.
        """
        url = URL(self._manners.base + EVENTS_PATH).with_query(params)
        ask = Ask("events", url, account, within=inf, otherwise=Urgency.NEWS)
        try:
            return await self._patiently(ask, self._read_events)
        except UnknownCustomer as odd:  # no customer was named
            raise Broken(odd.message, status=odd.status) from None

    def _read_events(self, answer: Answer) -> Listed:
        page, date = read_answer(answer), date_in(answer.headers)
        ahead = 0.0 if date is None else self._clock() - date
        return Listed(page, answer.asked_at, ahead)

    async def _patiently(self, ask: Ask, read: Callable[[Answer], T]) -> T:
        attempt, began = 1, self._clock()
        while True:
            try:
                return await self._ask(ask, read)
            except UpstreamError as error:
                pause = self._manners.pause_after(error, attempt, self._clock() - began, self._chance())
                if pause is None:
                    raise
            await asyncio.sleep(pause)
            attempt += 1

    async def probe(self) -> None:
        """Ask once for the entitlements of nobody, a request that the budget has given already.

        That Stripe knows no such customer shows that the key may read entitlements.

        :raises UpstreamError: when it may not, or there is no answer.
        """
        url = URL(self._manners.base + LIST_PATH).with_query(customer=NOBODY, limit="1")
        with suppress(UnknownCustomer):
            _ = await self._ask(Ask("list", url, None, Flight(self._clock(), prepaid=True)), self._read_page)

    def _read_page(self, answer: Answer) -> Page:
        return read_page(read_answer(answer), livemode=self.livemode, asked_at=answer.asked_at)

    async def relay(self, path: str, query: str, account: str | None, *, within: float = QUEUE) -> Answer:
        """Pass a GET on to Stripe, once, waiting for the budget at most ``within`` seconds; return what it answers.

        :raises UpstreamError: when there is no answer to pass on.
        """
        url = URL(self._manners.base + path + (f"?{query}" if query else ""), encoded=True)
        ask = Ask("relay", url, account, within=within)
        with self.span(None):
            try:
                return await self._ask(ask, self._pass_on)
            except KeyRejected as rejected:
                if not rejected.retry:  # it was not rotated either
                    raise
            return await self._ask(ask, self._pass_on)

    def _pass_on(self, answer: Answer) -> Answer:
        """Return ``answer`` without secrets, unless it is none or says that our own key is not accepted."""
        if answer.status == HTTPStatus.UNAUTHORIZED:
            raise refusal(answer.status, answer.headers, answer.body)
        if not 200 <= answer.status <= 599:
            raise Broken(f"Stripe answered {answer.status}, which is no status of an answer")
        headers = {
            name: answer.headers[name] for name in PASSED_ON if PRINTABLE.fullmatch(answer.headers.get(name, ""))
        }
        found = request_id_in(answer.headers)
        if found is not None:
            headers["Request-Id"] = found
        clean = {name: self._key.scrub(value) for name, value in headers.items()}
        return replace(answer, headers=clean, body=self._key.scrub_bytes(answer.body))

    async def _ask(self, ask: Ask, read: Callable[[Answer], T]) -> T:
        """Ask once, with a token, through the breaker."""
        breaker = self.breakers[ask.operation]
        async with self._token(ask, breaker):
            with breaker.entered() as passage:
                return await self._attempt(ask, read, passage)

    @asynccontextmanager
    async def _token(self, ask: Ask, breaker: Breaker) -> AsyncIterator[None]:
        """Have a token meanwhile, unless that would be in vain: then none is waited for, and what was taken goes back.

        Whoever is to find out whether Stripe is back has time.
        """
        paid = ask.flight is not None and ask.flight.prepaid
        if ask.flight is not None:
            ask.flight.prepaid = False
        try:
            breaker.look()
            if not paid:
                await self._limiter.take(
                    lambda: Urgency.BACKGROUND if breaker.state is State.HALF_OPEN else ask.urgency(), within=ask.within
                )
                paid = True
            yield
        except CircuitOpen as is_open:
            if paid:
                self._limiter.give_back()
            if ask.flight is not None:
                ask.flight.trouble = (CircuitOpen, is_open.detail)
            raise

    async def _attempt(self, ask: Ask, read: Callable[[Answer], T], passage: Passage) -> T:
        used, asked_at, answer = self._key.reveal(), self._clock(), None
        headers = {"Authorization": f"Bearer {used}", "Stripe-Version": self.version}
        if ask.account is not None:
            headers["Stripe-Account"] = ask.account
        try:
            answer = await self._send(ask, headers, asked_at)
            result = read(answer)
        except SidecarError as error:
            self._count(ask, asked_at, answer, error.code)
            await self._failed(ask, error, answer, used)
            self._draw_conclusions(error, answer, asked_at, passage)
            raise
        self._count(ask, asked_at, answer, "200")
        if ask.flight is not None:
            ask.flight.trouble = None
        if answer.status == HTTPStatus.OK:
            self._answered(ask.operation)
        if answer.status < 400:
            passage.succeed()
        else:  # passed on
            said = refusal(answer.status, answer.headers, answer.body)
            self._draw_conclusions(said, answer, asked_at, passage)
        return result

    async def _send(self, ask: Ask, headers: dict[str, str], asked_at: float) -> Answer:
        repeated = partial(self._repeated, ask.operation)
        with self.span(f"stripe {ask.operation}") as span:
            span.attributes |= {"http.request.method": "GET", "server.address": ask.url.host or ""}
            answer = await self._transport.get(
                ask.url, headers | span.headers, asked_at, repeated=repeated, urgency=ask.urgency
            )
            span.attributes |= {
                "http.response.status_code": answer.status,
                "stripe.request_id": request_id_in(answer.headers) or "",
            }
            return answer

    def _draw_conclusions(self, error: SidecarError, answer: Answer | None, asked_at: float, passage: Passage) -> None:
        """Let the budget and the breaker know what an answer (or none) that was not used means for them."""
        if isinstance(error, Throttled):
            if error.reason is not None:
                reason = error.reason if error.reason in REASONS else "for a reason of its own"
                self._limiter.slow_down(asked_at, f"Stripe limits the rate ({reason})", after=error.after)
        elif isinstance(error, Broken | Unreachable) and shows_that_stripe_fails(error, answer):
            passage.fail(error.kept())
        elif isinstance(error, UnknownCustomer | RequestRejected):  # only a Stripe that works refuses so
            passage.succeed()

    def _answered(self, operation: str) -> None:
        if operation != "events":  # they have a health of their own, the feed's
            self.health.succeeded()

    async def _failed(self, ask: Ask, error: SidecarError, answer: Answer | None, used: str) -> None:
        """Add to ``error`` what only is known here, without secrets, and note it; ``used`` is the key that was sent."""
        if isinstance(error, UnknownCustomer):
            error.message = self._key.scrub(error.message)
            error.args = (error.message,)
            self._answered(ask.operation)
        if not isinstance(error, UpstreamError):
            return
        error.detail = self._key.scrub(error.detail)
        error.args = (error.detail,)
        if answer is not None:
            error.status, error.request_id = answer.status, request_id_in(answer.headers)
        if isinstance(error, KeyRejected):  # rotated meanwhile, by another flight or in the file?
            if used == self._key.reveal():
                await self._key.reload()
            error.retry = used != self._key.reveal()
        if ask.flight is not None:
            ask.flight.trouble = (type(error), error.detail)
        if ask.operation != "events" and not says_nothing_of_stripe(error, ask.account):
            self.health.failed(error)

    def _count(self, ask: Ask, asked_at: float, answer: Answer | None, outcome: str) -> None:
        if answer is not None:
            status = str(answer.status)
            label = status if status in STATUSES else "other"
        else:
            label = outcome if outcome in OUTCOMES else "unreachable"  # a repeat that the budget had no room for
        self.requests[ask.operation, label] += 1
        self.durations.add(self._clock() - asked_at)
        if ask.flight is not None:
            request_id = None if answer is None else request_id_in(answer.headers)
            ask.flight.exchanges.append(Exchange(asked_at, label if answer is None else str(answer.status), request_id))

    def _repeated(self, operation: str) -> None:
        self.requests[operation, "unreachable"] += 1
