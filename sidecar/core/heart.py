"""The parts of the heart, put together: what the ways in ask, what news is brought to, what a scrape reads."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Self

from sidecar.core.audit import Audit
from sidecar.core.cache import Cache
from sidecar.core.changes import Changes
from sidecar.core.checker import Checker, Policies
from sidecar.core.news import News
from sidecar.core.recall import Recall, Store
from sidecar.core.refresher import Fetch, Refresher
from sidecar.core.schedule import Schedule
from sidecar.core.trust import Trust
from sidecar.core.vigil import Vigil
from sidecar.core.watermarks import Watermarks
from sidecar.kit.clock import Clock
from sidecar.kit.tasks import Tasks
from sidecar.settings import Freshness


class Ports(NamedTuple):
    """What the heart has of the world: one customer's list, requests that are left over, memory beyond the process."""

    fetch: Fetch
    take_spare: Callable[[], bool]
    store: Store


class Rules(NamedTuple):
    """What the heart goes by. ``seed`` is this process's own, unlike any other's.

    Without a feed nothing vouches for lists, not even what the feed of an earlier process has heard.
    """

    freshness: Freshness
    policies: Policies
    cache_bytes: int
    seed: int
    is_fed: bool = True


@dataclass(frozen=True)
class Heart:
    """Every part once."""

    watermarks: Watermarks
    cache: Cache
    changes: Changes
    audit: Audit
    refresher: Refresher
    schedule: Schedule
    news: News
    vigil: Vigil
    checker: Checker
    tasks: Tasks

    @classmethod
    def of(cls, ports: Ports, rules: Rules, *, tasks: Tasks, clock: Clock) -> Self:
        """Build the parts in order of dependence."""
        fetch, take_spare, store = ports
        watermarks = Watermarks(store.spans if rules.is_fed else {})
        cache, audit = Cache(rules.cache_bytes, watermarks), Audit(watermarks, clock=clock)
        changes = Changes(boot=f"{rules.seed:08x}")
        refresher = Refresher(fetch, cache, clock=clock, tasks=tasks, take_spare=take_spare)
        schedule = Schedule(cache, refresher, tasks=tasks, clock=clock)
        recall = Recall(store, cache, schedule, tasks=tasks)
        refresher.sinks += changes.note, audit.compare, schedule.look_again, recall.keep
        news = News(refresher, schedule, watermarks, audit, store=store, clock=clock)
        vigil = Vigil(refresher, tasks=tasks, clock=clock)
        trust = Trust(rules.freshness, watermarks, seed=rules.seed)
        checker = Checker(recall, refresher, vigil, trust=trust, policies=rules.policies, clock=clock)
        return cls(watermarks, cache, changes, audit, refresher, schedule, news, vigil, checker, tasks)
