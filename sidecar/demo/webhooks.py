"""
Events signed and posted to endpoints, as Stripe does it: at least once, in no promised order, again after a failure.

Everything but 2xx is a failure, a redirect too. Each attempt has a timestamp and signatures of its own; the pauses in
between double. What the network may do besides is switched per endpoint: lose, duplicate, delay and reorder.
"""

import asyncio
import hashlib
import hmac
import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import NamedTuple

import aiohttp
import orjson

from sidecar.demo.faults import Json

HEADERS = {
    "Content-Type": "application/json; charset=utf-8",
    "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
}


def sign(body: bytes, secret: str | Iterable[str], timestamp: int) -> str:
    """Make the header `Stripe-Signature`, with one `v1` per secret (docs.stripe.com/webhooks); Unix seconds."""
    secrets = [secret] if isinstance(secret, str) else secret
    signed = b"%d.%b" % (timestamp, body)
    return ",".join(
        [f"t={timestamp}", *(f"v1={hmac.new(s.encode(), signed, hashlib.sha256).hexdigest()}" for s in secrets)]
    )


class Delivery(NamedTuple):
    """What became of one attempt."""

    event: str  # its id
    attempt: int  # from 1; 0: lost, never sent
    status: int | None  # None: no answer


@dataclass(slots=True)
class _Parcel:
    """One event on its way to one endpoint."""

    event: Json
    body: bytes
    endpoint: "Endpoint"
    delay: float = 0.0
    taken: bool = False


@dataclass(slots=True, eq=False)
class Endpoint:
    """Where events go, and what happens to them on the way; times are in seconds, everything may be changed anytime."""

    url: str
    secrets: list[str] = field(repr=False)  # several while one is rotated
    types: frozenset[str] | None = None  # None: all
    connect: bool = False  # the events of connected accounts instead of the own one's
    thin: bool = False  # thin events instead of snapshots
    attempts: int = 6
    first_delay: float = 1.0  # between the first attempt and the second; then twice as long each time
    latency: float = 0.0  # of every attempt, between signature and arrival
    timeout: float = 10.0
    deliveries: deque[Delivery] = field(default_factory=lambda: deque(maxlen=100_000), repr=False)
    _lost: int = field(default=0, init=False)
    _doubled: int = field(default=0, init=False)
    _delayed: tuple[int, float] = field(default=(0, 0.0), init=False)
    _awaited: int = field(default=0, init=False)
    _held: list[_Parcel] = field(default_factory=list, init=False, repr=False)
    _arrange: Callable[[list[_Parcel]], None] = field(default=list.reverse, init=False, repr=False)

    def lose(self, times: int = 1) -> None:
        """Never send the next events, and let Stripe not notice: nothing is tried again."""
        self._lost = times

    def duplicate(self, times: int = 1) -> None:
        """Send each of the next events twice."""
        self._doubled = times

    def delay(self, seconds: float, times: int = 1) -> None:
        """Send the next events so much later, while others pass them."""
        self._delayed = times, seconds

    def reorder(self, count: int, rng: random.Random | None = None) -> None:
        """Hold the next events back until there are so many, then send them in reverse, or shuffled by `rng`."""
        self._awaited, self._arrange = count, rng.shuffle if rng else list.reverse

    def pause(self, attempt: int) -> float:
        """Give the seconds between this attempt, from 1, and the next."""
        return self.first_delay * 2.0 ** (attempt - 1)

    def wants(self, type_: str, account: str | None, *, thin: bool) -> bool:
        return self.thin is thin and self.connect is (account is not None) and (not self.types or type_ in self.types)

    def ready(self, parcel: _Parcel) -> list[_Parcel]:
        """Take one in and give what is to be sent now, one after the other."""
        if self._lost:
            self._lost -= 1
            self.deliveries.append(Delivery(parcel.event["id"], 0, None))
            return []
        left, seconds = self._delayed
        if left:
            self._delayed, parcel.delay = (left - 1, seconds), seconds
        self._held += [parcel, parcel] if self._doubled else [parcel]
        self._doubled, self._awaited = max(0, self._doubled - 1), max(0, self._awaited - 1)
        return [] if self._awaited else self.released()

    def released(self) -> list[_Parcel]:
        """Give what was held back, in its new order, and hold nothing back any longer."""
        self._held, held, self._awaited = [], self._held, 0
        self._arrange(held)
        return held


class Webhooks:
    """The endpoints, and the tasks on their way to them; what happens while nobody is `sending` waits until then."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.endpoints: list[Endpoint] = []
        self._now = now  # Unix seconds, for the signatures
        self._session: aiohttp.ClientSession | None = None
        self._unsent: list[list[_Parcel]] = []
        self._tasks: set[asyncio.Task[None]] = set()  # running, or failed in a way that nobody foresaw

    def post(self, event: Json, *, account: str | None = None, thin: bool = False) -> None:
        """Send the event to all who want it; a snapshot says of itself how many have not taken it yet."""
        wanted = [endpoint for endpoint in self.endpoints if endpoint.wants(event["type"], account, thin=thin)]
        if not thin:
            event["pending_webhooks"] = len(wanted)
        body = orjson.dumps(event, option=orjson.OPT_INDENT_2)
        for endpoint in wanted:
            self._send(endpoint.ready(_Parcel(event, body, endpoint)))

    async def delivered(self) -> None:
        """Send what is held back for reordering, and wait until nothing is outstanding, taken or given up."""
        for endpoint in self.endpoints:
            self._send(endpoint.released())
        while self._tasks:
            done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                if not task.cancelled():  # by leaving
                    task.result()

    @asynccontextmanager
    async def sending(self) -> AsyncIterator[None]:
        """Send until left; then what is under way is given up, and stays pending."""
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
            self._session, self._unsent, unsent = session, [], self._unsent
            for parcels in unsent:
                self._send(parcels)
            try:
                yield
            finally:
                self._session = None
                for task in self._tasks:
                    task.cancel()
                ends = await asyncio.gather(*self._tasks, return_exceptions=True)
                self._tasks.clear()
        for end in ends:
            if isinstance(end, Exception):
                raise end

    def _send(self, parcels: list[_Parcel]) -> None:
        if self._session and parcels:
            self._start(self._deliver(self._session, parcels))
        elif parcels:
            self._unsent.append(parcels)

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or not task.exception():
            self._tasks.discard(task)

    async def _deliver(self, session: aiohttp.ClientSession, parcels: list[_Parcel]) -> None:
        for parcel in parcels:
            await asyncio.sleep(parcel.delay)
            if not await self._is_taken(session, parcel, 1):
                self._start(self._retry(session, parcel))

    async def _retry(self, session: aiohttp.ClientSession, parcel: _Parcel) -> None:
        for attempt in range(2, parcel.endpoint.attempts + 1):
            await asyncio.sleep(parcel.endpoint.pause(attempt - 1))
            if await self._is_taken(session, parcel, attempt):
                return

    async def _is_taken(self, session: aiohttp.ClientSession, parcel: _Parcel, attempt: int) -> bool:
        endpoint, status = parcel.endpoint, None
        headers = HEADERS | {"Stripe-Signature": sign(parcel.body, endpoint.secrets, int(self._now()))}
        timeout = aiohttp.ClientTimeout(total=endpoint.timeout)
        await asyncio.sleep(endpoint.latency)
        with suppress(aiohttp.ClientError, TimeoutError):  # no answer is recorded as None and tried again
            async with session.post(
                endpoint.url, data=parcel.body, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                status = response.status
        endpoint.deliveries.append(Delivery(parcel.event["id"], attempt, status))
        if status is None or not 200 <= status < 300:
            return False
        if not parcel.taken and not endpoint.thin:
            parcel.event["pending_webhooks"] -= 1
        parcel.taken = True
        return True
