"""The way to Stripe.

Per page: attempts (stamina) × budget (limiter) × one request. The network's errors become ours here and nowhere else;
nothing above this module sees an aiohttp error.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, TypeVar

import aiohttp
import stamina
from yarl import URL

from sidecar.errors import (
    Broken,
    CursorVanished,
    KeyRejected,
    OverBudget,
    Throttled,
    UnknownCustomer,
    Unreachable,
    UpstreamError,
)
from sidecar.kit.clock import Clock
from sidecar.kit.limiter import Limiter
from sidecar.kit.tally import Tally
from sidecar.model import Customer, Exchange, Flight, Snapshot, Unknown
from sidecar.stripe.answers import read_json, refusal
from sidecar.stripe.health import Health
from sidecar.stripe.key import ApiKey
from sidecar.stripe.pages import Page, Reading, read_page
from sidecar.stripe.render import LIST_PATH

T = TypeVar("T")

log = logging.getLogger(__name__)

STATUSES = ("200", "400", "401", "403", "404", "409", "424", "429", "500", "502", "503", "504")
OUTCOMES = (*STATUSES, "other", "broken", "unreachable")
OPERATIONS = ("list", "relay")
QUEUE = 10.0
"""Seconds that a request may wait for the budget: at 20 requests/s two hundred customers, which is a cold start's
crowd; those beyond are told at once."""

BODY = 16 << 20
"""Bytes that an answer may have: a page of 100 entitlements with lookup keys of 5,000 characters is 1.5 MB."""

TIMEOUT = aiohttp.ClientTimeout(total=10.0, sock_connect=2.0)


@dataclass(frozen=True, slots=True)
class Manners:
    """How Stripe is asked: where, in which version, how often and how patiently again. Times in seconds."""

    base: str
    version: str
    max_pages: int = 100
    restarts: int = 3
    attempts: int = 4
    timeout: float = 10.0
    initial: float = 0.25
    longest: float = 4.0
    jitter: float = 0.25

    def worth_a_retry(self, error: Exception) -> bool | float:
        """Tell stamina whether to try again, and after how many seconds if Stripe says so (``Retry-After``)."""
        if not isinstance(error, UpstreamError) or not error.retry:
            return False
        after = error.after if isinstance(error, Throttled) else None
        if not after:
            return True
        return after if after <= self.timeout else False


@dataclass(frozen=True, slots=True)
class Relayed:
    """An answer of Stripe's, passed on as it is."""

    status: int
    body: bytes
    headers: Mapping[str, str]
    asked_at: float


def unless_key_rejected(answer: Relayed) -> Relayed:
    """Return ``answer``, whatever it is, unless it says that our own key is not accepted."""
    if answer.status == 401:
        raise refusal(answer.status, answer.headers, answer.body)
    return answer


class Repeats:
    """A client middleware: aiohttp sends a GET once more by itself when a pooled connection turns out to be closed.

    That is a request like any other, so the budget is asked and it is counted.
    """

    def __init__(self, limiter: Limiter, repeated: Callable[[], None]) -> None:
        self._limiter = limiter
        self._repeated = repeated
        self._sent = False

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Send ``request``, by way of the budget unless it is the first time."""
        if self._sent:
            await self._limiter.take(within=1.0)
            self._repeated()
        self._sent = True
        return await handler(request)


class StripeClient:
    """Read from Stripe's API within the budget."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        key: ApiKey,
        manners: Manners,
        *,
        limiter: Limiter,
        clock: Clock,
    ) -> None:
        self.requests = {(operation, outcome): 0 for operation in OPERATIONS for outcome in OUTCOMES}
        self.durations = Tally((0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5, 10))
        self.health = Health(clock)
        self.livemode = key.livemode
        self.version = manners.version
        self._session = session
        self._key = key
        self._manners = manners
        self._limiter = limiter
        self._clock = clock
        self._wrong_mode_said_at: float | None = None

    async def fetch(self, customer: Customer, flight: Flight) -> Snapshot:
        """Read the complete list of ``customer``, writing the flight's log.

        A cursor that vanished starts the whole read again, a few times (Stripe: ``resource_missing`` with param
        ``starting_after``).

        :raises UpstreamError: when no complete list could be read.
        """
        last: CursorVanished | None = None
        for _ in range(self._manners.restarts + 1):
            reading = Reading(customer, max_pages=self._manners.max_pages)
            try:
                return await self._read(reading, customer, flight)
            except CursorVanished as vanished:
                last = vanished
            except UnknownCustomer as unknown:
                self._mind_the_mode(unknown)
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
        manners = self._manners
        async for attempt in stamina.retry_context(
            on=manners.worth_a_retry,
            attempts=manners.attempts,
            timeout=manners.timeout,
            wait_initial=manners.initial,
            wait_max=manners.longest,
            wait_jitter=manners.jitter,
        ):
            with attempt:
                return await self._ask("list", url, account, self._read_page, flight=flight)
        raise AssertionError  # pragma: no cover -- the last attempt raises

    def _read_page(self, answer: Relayed) -> Page:
        request_id = answer.headers.get("Request-Id")
        if answer.status != 200:
            raise refusal(answer.status, answer.headers, answer.body)
        page = read_json(answer.body, status=200, request_id=request_id)
        return read_page(page, livemode=self.livemode, asked_at=answer.asked_at)

    async def relay(self, path: str, query: str, account: str | None, *, within: float = QUEUE) -> Relayed:
        """Pass a GET on to Stripe, once, waiting for the budget at most ``within`` seconds; return what it answers.

        :raises UpstreamError: when there is no answer to pass on.
        """
        url = URL(self._manners.base + path + (f"?{query}" if query else ""), encoded=True)
        return await self._ask("relay", url, account, unless_key_rejected, within=within)

    async def _ask(
        self,
        operation: str,
        url: URL,
        account: str | None,
        read: Callable[[Relayed], T],
        *,
        flight: Flight | None = None,
        within: float = QUEUE,
    ) -> T:
        if flight is not None and flight.prepaid:
            flight.prepaid = False
        else:
            await self._limiter.take(within=within)
        used, asked_at, answer = self._key.reveal(), self._clock(), None
        try:
            answer = await self._get(url, account, asked_at, Repeats(self._limiter, partial(self._dropped, operation)))
            result = read(answer)
        except OverBudget:  # the repeat of a request on a connection that was dropped; see Repeats
            self._count(operation, flight, asked_at, answer, Unreachable.code)
            raise
        except UpstreamError as error:
            self._count(operation, flight, asked_at, answer, error.code)
            await self._explain(error, answer, used)
            raise
        except UnknownCustomer as unknown:
            self._count(operation, flight, asked_at, answer, "unknown_customer")
            unknown.message = self._key.scrub(unknown.message)
            unknown.args = (unknown.message,)
            self.health.succeeded()
            raise
        self._count(operation, flight, asked_at, answer, "200")
        if answer.status == HTTPStatus.OK:  # an error that is passed on says nothing about our own reads
            self.health.succeeded()
        return result

    async def _explain(self, error: UpstreamError, answer: Relayed | None, used: str) -> None:
        """Add to ``error`` what only is known here, without secrets, and note it; ``used`` is the key that was sent."""
        error.detail = self._key.scrub(error.detail)
        error.args = (error.detail,)
        if answer is not None:
            error.status = answer.status
            error.request_id = answer.headers.get("Request-Id")
        if isinstance(error, KeyRejected):  # rotated meanwhile, by another flight or in the file?
            if used == self._key.reveal():
                await asyncio.to_thread(self._key.reload)
            error.retry = used != self._key.reveal()
        if not isinstance(error, CursorVanished):
            self.health.failed(error)

    def _count(
        self, operation: str, flight: Flight | None, asked_at: float, answer: Relayed | None, outcome: str
    ) -> None:
        if answer is not None:
            status = str(answer.status)
            label = status if status in STATUSES else "other"
        else:
            label = outcome if outcome in OUTCOMES else "other"
        self.requests[operation, label] += 1
        self.durations.add(self._clock() - asked_at)
        if flight is not None:
            request_id = None if answer is None else answer.headers.get("Request-Id")
            flight.exchanges.append(Exchange(asked_at, label if answer is None else str(answer.status), request_id))

    def _dropped(self, operation: str) -> None:
        self.requests[operation, "unreachable"] += 1

    async def _get(self, url: URL, account: str | None, asked_at: float, repeats: Repeats) -> Relayed:
        headers = {"Authorization": f"Bearer {self._key.reveal()}", "Stripe-Version": self._manners.version}
        if account is not None:
            headers["Stripe-Account"] = account
        try:
            # Redirects are not followed: they would carry the key to another place.
            async with self._session.get(
                url, headers=headers, allow_redirects=False, timeout=TIMEOUT, middlewares=[repeats]
            ) as response:
                return Relayed(response.status, await read_body(response), response.headers, asked_at)
        except TimeoutError:
            raise Unreachable(f"no answer from {url.origin()} in time") from None
        except aiohttp.ClientResponseError as error:  # its own text has the URL, and so the customer
            raise Broken(f"the answer from {url.origin()} is not HTTP: {error.message}") from None
        except aiohttp.ClientPayloadError as error:
            raise Broken(f"the answer from {url.origin()} was cut off: {error}") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Unreachable(f"{url.origin()} cannot be reached: {str(error) or type(error).__name__}") from None

    def _mind_the_mode(self, unknown: UnknownCustomer) -> None:
        """Say loudly, once a minute, that a customer of the other mode was asked about: one of both is misconfigured."""
        now = self._clock()
        recently = self._wrong_mode_said_at is not None and now - self._wrong_mode_said_at < 60
        if unknown.code == "wrong_mode" and not recently:
            self._wrong_mode_said_at = now
            log.warning("the API key is of another mode than a customer it is asked about: %s", unknown.message)


async def read_body(response: aiohttp.ClientResponse) -> bytes:
    """Return the body of ``response``, unless it is far longer than any answer of Stripe's.

    :raises Broken: when it is.
    """
    chunks: list[Any] = []
    size = 0
    async for chunk in response.content.iter_chunked(1 << 16):
        size += len(chunk)
        if size > BODY:
            raise Broken(f"an answer of more than {BODY} bytes", status=response.status, retry=False)
        chunks.append(chunk)
    return b"".join(chunks)
