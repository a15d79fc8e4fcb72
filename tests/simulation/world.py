"""One run: a sidecar, its callers, Stripe and all that goes wrong between them, from a seed."""

import asyncio
import logging
import random
from dataclasses import replace
from math import inf
from typing import Any

from sidecar.errors import UpstreamError
from sidecar.kit.tasks import Tasks
from sidecar.model import Customer, Plan, Snapshot, Unknown, packed
from sidecar.stores.memory import Memory
from tests.simulation.callers import Caller
from tests.simulation.disk import Disk, File
from tests.simulation.history import History
from tests.simulation.invariants import Judge
from tests.simulation.process import Process, Scene
from tests.simulation.scenario import ROOMY, Ask, Author, Step
from tests.simulation.timing import START, Time, play
from tests.simulation.truth import Event
from tests.simulation.upstream import Upstream

LONGEST_PAUSE = 31.0
"""Seconds that the schedule of dirty customers may rest after failures."""


class Alarm(logging.Handler):
    """Whatever the sidecar logs as an error breaks the promise that nothing unexpected happens."""

    history: History | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if self.history is not None:
            self.history.breaks("No surprise", f"{record.getMessage()}: {record.exc_info and record.exc_info[1]!r}")


ALARM = Alarm()


def listen_for_errors() -> None:
    """Have all errors that the sidecar logs raise the alarm, and nothing else logged; once for this process."""
    logger = logging.getLogger("sidecar")
    logger.setLevel(logging.ERROR)
    logger.propagate = False
    logger.addHandler(ALARM)


class World:
    """What happens in a run."""

    def __init__(self, seed: int, *, written: bool, promise: str | None = None) -> None:
        random.seed(seed)  # for the feed, whose jitter nobody passes in
        self._rng = random.Random(seed)  # noqa: S311 -- to be repeated, not to be secret
        self._time = Time()
        self.history = History(lambda: self._time.now, written=written, promise=promise)
        scenario = Author(self._rng).write()
        self._knobs, self._truth, self._steps = scenario.knobs, scenario.truth, scenario.steps
        self._upstream = Upstream(scenario, self._rng, self._time, self.history)
        self._judge = Judge(self._knobs, self._truth, self._time, self.history)
        self._callers = Tasks()
        self._file = File()
        self._process: Process | None = None

    def run(self) -> None:
        """Live through the run; the history tells whether a promise was broken."""
        ALARM.history = self.history
        self._tell_the_truth()
        play(self._time, self._live(), self._complain)
        self.history.counts["virtual seconds"] += int(self._time.now - START)
        ALARM.history = None
        self._file.destroy()

    def _complain(self, context: dict[str, Any]) -> None:
        self.history.breaks("No surprise", f"{context.get('message')}: {context.get('exception')!r}")

    def _tell_the_truth(self) -> None:
        """Write down what is going to happen at Stripe."""
        history = self.history
        if not history.written:
            return
        history.say("knobs", self._knobs)
        for person in self._truth.people.values():
            history.say("person", person.customer, "created", history.moment(max(person.created, START)))
            for one in person.holdings:
                since, until = history.moment(max(one.since, START)), history.moment(one.until)
                history.say("holds", one.id, one.feature.lookup_key, "from", since, "until", until)
        for event in self._truth.events:
            history.say(
                "event", event.id, "of", history.moment(event.changed), "visible", history.moment(event.visible)
            )

    async def _live(self) -> None:
        await self._start()
        for step in self._steps:
            if step.at > self._time.now:
                await asyncio.sleep(step.at - self._time.now)
            if self.history.broken:
                break
            await self._do(step)
        if not self.history.broken:
            await self._settle()
        await self._callers.close()
        await self._stop()

    async def _start(self) -> None:
        self.history.say("start")
        store: Memory | Disk = Memory()
        if self._knobs.disk:
            store = Disk(self._file, self._time, self._rng, self._knobs.disk_trouble)
            await store.open()
        scene = Scene(self._knobs, self._upstream, self._time)
        self._process = Process(scene, self._judge, self.history, store, self._rng)
        self._process.start()

    async def _stop(self) -> None:
        if self._process is not None:
            await self._process.stop()
        self._process = None

    async def _do(self, step: Step) -> None:
        process = self._process
        if step.what == "restart":
            await self._restart(float(str(step.about)))
        elif step.what == "jump":
            self._judge.jumps += 1
            self.history.counts["jumps"] += 1
            self._time.advance(float(str(step.about)))
            self.history.say("jumped", step.about)
        elif process is not None:
            self._disturb(process, step)
            self._judge.kept(process.heart.cache.bytes)

    def _disturb(self, process: Process, step: Step) -> None:
        about = step.about
        if isinstance(about, Ask):
            self._ask(process, about)
        elif isinstance(about, Event):
            process.hear(about)
        elif isinstance(about, Customer):
            self._offer(process, about, self._older(about) if step.what == "older" else self._peers(about))
        else:
            process.feed.hurry()

    def _ask(self, process: Process, ask: Ask) -> None:
        caller = Caller(process, self._judge, self._time, self.history)
        task = self._callers.start(caller.ask(ask), name="caller")
        if ask.patience < inf:
            asyncio.get_running_loop().call_later(ask.patience, self._hang_up, task)

    def _hang_up(self, task: asyncio.Task[None]) -> None:
        self.history.counts["callers who hung up"] += task.cancel()

    async def _restart(self, pause: float) -> None:
        self.history.say("restart")
        self.history.counts["restarts"] += 1
        await self._callers.close()
        former = self._process
        if former is not None and self._rng.random() < 0.5:
            self.history.say("killed")
            await former.kill()
        else:
            await self._stop()
        await asyncio.sleep(pause)
        await self._start()
        if former is not None and self._process is not None:
            self._process.record.inherit(former.record)

    # What a shared store or another replica would bring.

    def _older(self, customer: Customer) -> Snapshot | None:
        """Return one of the lists of ``customer`` that were read some time."""
        lists = [one for (whose, _), one in self._judge.taken.items() if whose == customer]
        return self._rng.choice(lists) if lists else None

    def _peers(self, customer: Customer) -> Snapshot:
        """Return a list of ``customer`` that another replica read a little while ago."""
        at, person = self._time() - self._rng.uniform(0.0, 4.0), self._truth.people[customer]
        unknown = Unknown(400, "No such customer") if person.created > at else None
        held = [] if unknown else person.list_at(at)
        plan = Plan.of(tuple(one.feature for one in held))
        return Snapshot(customer, at, plan, packed([one.id for one in held]), unknown)

    def _offer(self, process: Process, customer: Customer, offered: Snapshot | None) -> None:
        """Bring ``offered`` to a cache that holds a list of that customer and forgets none (see ``ROOMY``)."""
        before = process.heart.cache.get(customer)
        if before is None or offered is None or self._knobs.cache_bytes < ROOMY:
            return
        self._judge.taken[customer, offered.taken_at] = replace(offered, dirty=None)
        taken = process.heart.cache.put(offered)
        self.history.say("offer", customer, self.history.moment(offered.taken_at), "taken" if taken else "refused")
        self.history.counts[f"offered lists {'taken' if taken else 'refused'}"] += 1
        after = process.heart.cache.get(customer)
        if after is not None and after.taken_at < before.taken_at:
            self.history.breaks("Forward", f"{before} gave way to {offered}")

    # The end: nothing goes wrong any more, and nothing changes.

    async def _settle(self) -> None:
        """See that all is well once Stripe is well and nothing changes any more."""
        self._upstream.calm = True
        last = max((event.visible for event in self._truth.events), default=0.0)
        await asyncio.sleep(max(0.0, last - self._time.now) + 3 * self._knobs.every + self._knobs.lag)
        await asyncio.sleep(
            2 * LONGEST_PAUSE + 100.0 / self._knobs.rate
        )  # the slowest have few requests for many pages
        process = self._process
        if process is None or self.history.broken:
            return
        self.history.say("calm")
        self._news_was_followed_up(process)
        await self._ask_all(process)
        await asyncio.sleep(2 * self._knobs.every + 10.0 + 30.0 / self._knobs.rate)
        self._nothing_is_left(process)
        for customer in self._truth.customers:
            await self._is_known(process, customer)

    async def _ask_all(self, process: Process) -> None:
        for customer in self._truth.customers:
            await Caller(process, self._judge, self._time, self.history).ask(
                Ask("check", customer, "key-1", None, None, 0.0, inf)
            )

    def _news_was_followed_up(self, process: Process) -> None:
        """See that whoever was dirty has been read again, although nobody asked."""
        heart = process.heart
        if len(heart.schedule):
            self.history.breaks("Liveness", f"{len(heart.schedule)} customers are still to be read again")
        for customer in self._truth.customers:
            held = heart.cache.get(customer)
            if held is not None and held.dirty is not None:
                self.history.breaks("Liveness", f"{held} is still dirty")

    def _nothing_is_left(self, process: Process) -> None:
        """See that nothing goes on any more but what goes on for ever."""
        heart, broken = process.heart, self.history.breaks
        running = len(process.tasks) - bool(self._knobs.every)
        if running or heart.refresher.in_the_air() or process.limiter.waiting or len(heart.vigil):
            broken("Liveness", f"{running} tasks are still running")
        if heart.audit.differences:
            broken("Audit", f"the feed is blamed for {heart.audit.differences} differences, but it told of everything")

    async def _is_known(self, process: Process, customer: Customer) -> None:
        """See that what is said of ``customer`` is young, and in the end true."""
        ask = Ask("find", customer, "key-1", None, None, 0.0, inf)
        caller = Caller(process, self._judge, self._time, self.history)
        held, since = process.heart.cache.get(customer), process.record.spans.get(customer.account, inf)
        if held is not None and customer.account is None and held.unknown is None and held.taken_at >= since:
            _, finding = process.heart.checker.state(customer)
            oldest = self._knobs.every + self._knobs.lag + 1.0 + 6.0 / self._knobs.rate
            if finding is None or finding.age > oldest:
                self.history.breaks("Liveness", f"older than {oldest} s with the feed working: {finding}")
        await caller.ask(ask)
        if customer.account is not None:  # a question is what its feed begins to be read for, and that may bring news
            await asyncio.sleep(2 * self._knobs.every + 10.0 + 30.0 / self._knobs.rate)
        try:
            snapshot = await process.heart.refresher.renew(customer)
        except UpstreamError as error:
            self.history.breaks("Liveness", f"{customer} cannot be read: {error!r}")
            return
        true = [one.id for one in self._truth.people[customer].list_at(self._time.now)]
        if list(snapshot.ids) != true or snapshot.dirty or snapshot.unknown:
            self.history.breaks("Liveness", f"{snapshot}, but true is {true}")
