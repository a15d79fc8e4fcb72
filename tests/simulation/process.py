"""One run of the sidecar's process: its parts as ``sidecar.app`` puts them together, between a Stripe and a judge."""

import asyncio
from collections.abc import Callable, Mapping
from random import Random
from typing import TYPE_CHECKING, NamedTuple, cast

from yarl import URL

from sidecar.core.checker import Policies
from sidecar.core.heart import Heart, Ports, Rules
from sidecar.errors import UpstreamError
from sidecar.kit.bucket import Bucket
from sidecar.kit.limiter import Limiter, Urgency
from sidecar.kit.tasks import Tasks
from sidecar.model import Customer, Flight, Policy, Snapshot
from sidecar.parts import feed_of
from sidecar.settings import Settings
from sidecar.stores.memory import Memory
from sidecar.stripe.answers import Answer
from sidecar.stripe.client import StripeClient
from sidecar.stripe.events import EVENTS_PATH
from sidecar.stripe.feed import Ears
from sidecar.stripe.key import ApiKey
from sidecar.stripe.manners import Manners
from tests.fakes import KEY
from tests.simulation.disk import Disk
from tests.simulation.history import History
from tests.simulation.invariants import Judge, Record
from tests.simulation.scenario import Knobs
from tests.simulation.timing import Time
from tests.simulation.truth import Event
from tests.simulation.upstream import BASE, Upstream

if TYPE_CHECKING:
    from sidecar.stripe.transport import Transport

POLICIES = Policies({"key-1": Policy.ALLOW, "key-2": Policy.ERROR})
VERSION = "2026-10-28.endive"


class Scene(NamedTuple):
    """What there is whether or not a process runs."""

    knobs: Knobs
    upstream: Upstream
    time: Time


class Purse(Bucket):
    """A bucket that writes down how many of its tokens are in somebody's hand, for a request that was not sent yet."""

    def __init__(self, record: Record, clock: Time) -> None:
        super().__init__(rate=record.rate, burst=record.burst, clock=clock)
        self._record = record

    def take(self) -> None:
        super().take()
        self._record.in_hand += 1

    def put_back(self) -> None:
        super().put_back()
        self._record.in_hand -= 1


class Process:
    """A sidecar with an empty memory, and perhaps a ``store``. ``record`` is what a judge has to know about it."""

    def __init__(self, scene: Scene, judge: Judge, history: History, store: Memory | Disk, rng: Random) -> None:
        knobs, upstream, time = scene
        self.store = store
        self._upstream = upstream
        self._judge = judge
        self._time = time
        self._history = history
        self.tasks = Tasks(expected=(UpstreamError,))
        self.record = Record(knobs.rate, knobs.burst)
        self.limiter = Limiter(rate=knobs.rate, burst=knobs.burst, clock=time)
        self.limiter.bucket = Purse(self.record, time)
        manners = Manners(BASE, VERSION, seed=rng.getrandbits(32))
        self.client = StripeClient(cast("Transport", self), ApiKey(KEY), manners, limiter=self.limiter, clock=time)
        rules = Rules(knobs.freshness, POLICIES, knobs.cache_bytes, seed=rng.getrandbits(32), is_fed=knobs.every > 0)
        self.heart = Heart.of(Ports(self.fetch, self.client.take_spare, store), rules, tasks=self.tasks, clock=time)
        if isinstance(store, Disk):
            store.everything = self.heart.cache.snapshots
        for account in self.heart.watermarks.accounts():
            self.record.spans[account] = self.heart.watermarks.spans(account)[-1].since
        settings = Settings(events_poll=knobs.every, events_lag=knobs.lag)
        self.feed = feed_of(settings, self.client, self.heart, time)
        told = self.feed._ears
        self.feed._ears = Ears(self._overheard(told.hear), self._begun(told.begin), told.advance)

    def start(self) -> None:
        """Let the loops run that ``sidecar.app`` runs."""
        if self.feed.every:
            _ = self.tasks.start(self.feed.run(), name="feed")

    async def get(
        self,
        url: URL,
        headers: Mapping[str, str],
        asked_at: float,
        *,
        repeated: Callable[[], None],
        urgency: Callable[[], Urgency],
    ) -> Answer:
        """Send a request, as ``Transport.get`` does, under the eyes of the judge."""
        customer = None
        if url.path != EVENTS_PATH:
            customer = Customer(url.query["customer"], headers.get("Stripe-Account"))
        self._judge.asked(self.record, customer, url.query_string)
        try:
            answer = await self._upstream.answer(url, headers, asked_at)
        except UpstreamError as error:
            self._history.say("answer", customer or "events", repr(error))
            raise
        if "Stripe-Rate-Limited-Reason" in answer.headers:
            self._judge.throttled(self.record, asked_at)
        self._history.say("answer", customer or "events", answer.status, answer.body if self._history.written else "")
        return answer

    async def fetch(self, customer: Customer, flight: Flight) -> Snapshot:
        """Read a list, and have the judge look at it before anybody else."""
        snapshot = await self.client.fetch(customer, flight)
        self._history.say("fetched", customer, "taken at", self._history.moment(snapshot.taken_at), *snapshot.ids)
        self._judge.fetched(snapshot)
        if (event := self._upstream.coincidence(customer)) is not None:
            _ = asyncio.get_running_loop().call_soon(
                self.hear, event
            )  # when the flight has landed, and before others know
        return snapshot

    def hear(self, event: Event) -> None:
        """Be told of ``event`` by a webhook."""
        accepted = self.heart.news.hear(event.id, event.customer, origin="webhook")
        self._heard("webhook", event.id, event.customer, accepted=accepted)
        if accepted and isinstance(self.store, Disk) and self.store.trouble is None:
            _ = self.tasks.start(self._keep(event.customer, self._time()), name="keep news")

    async def _keep(self, customer: Customer, heard_at: float) -> None:
        """Wait until news is on the disk: from then on no later process may answer as if there had been none."""
        losses = sum(self.store.losses.values()) if isinstance(self.store, Disk) else 0
        await self.store.flush()
        if isinstance(self.store, Disk) and sum(self.store.losses.values()) == losses and self.store.trouble is None:
            self._history.say("kept", customer)
            self._history.counts["news kept on the disk"] += 1
            self.record.kept[customer] = heard_at

    def _overheard(self, hear: Callable[[str, Customer], bool]) -> Callable[[str, Customer], bool]:
        def overheard(event_id: str, customer: Customer) -> bool:
            accepted = hear(event_id, customer)
            self._heard("feed", event_id, customer, accepted=accepted)
            return accepted

        return overheard

    def _heard(self, origin: str, event_id: str, customer: Customer, *, accepted: bool) -> None:
        self._history.say("news", event_id, "by", origin, "" if accepted else "(known)")
        self._history.counts["news" if accepted else "news told again"] += 1
        if accepted:
            now = self._time()
            self.record.news.setdefault(customer, []).append(now)
            if self.heart.cache.get(customer) is not None:
                self.record.marked[customer] = now

    def _begun(self, begin: Callable[[str | None, float], None]) -> Callable[[str | None, float], None]:
        def begun(account: str | None, since: float) -> None:
            self._history.say("span", account or "", "since", self._history.moment(since))
            self.record.spans[account] = since
            begin(account, since)

        return begun

    def note_counts(self) -> None:
        """Add what the parts have counted to the history's counts."""
        heart, counts = self.heart, self._history.counts
        if isinstance(self.store, Disk):
            counts["lists recalled"] += self.store.reads["found"]
            counts["losses of the disk"] += sum(self.store.losses.values())
        counts["evictions"] += heart.cache.evictions
        counts["flights overtaken by news"] += heart.refresher.overtaken
        counts["flights put off for the budget"] += heart.refresher.deferred
        counts["requests that the budget refused"] += self.limiter.refused
        counts["refusals of the limiter"] += self.limiter.bucket.throttled
        counts["breakers opened"] += sum(breaker.opened for breaker in self.client.breakers.values())
        counts["lists compared for the audit"] += heart.audit.checked
        counts["changes told"] += heart.changes.last
        counts["polls"] += self.feed.polls["complete"]
        counts["gaps"] += self.feed.polls["gap"]
        counts["polls that failed"] += (
            sum(self.feed.polls.values()) - self.feed.polls["complete"] - self.feed.polls["gap"]
        )
        for outcome, count in heart.refresher.outcomes.items():
            if count:
                counts[f"flight {outcome}"] += count

    async def stop(self) -> None:
        """End all that runs, as at a shutdown."""
        await self.tasks.close()
        if isinstance(self.store, Disk):
            await self.store.close()
        self.note_counts()

    async def kill(self) -> None:
        """End all that runs, with nothing said."""
        await self.tasks.close()
        if isinstance(self.store, Disk):
            await self.store.kill()
        self.note_counts()
