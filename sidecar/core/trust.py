"""How far what is in memory may be trusted, and when it is due to be read again."""

from math import inf
from zlib import crc32

from sidecar.core.globs import by_glob
from sidecar.core.watermarks import Watermarks
from sidecar.model import Snapshot, State
from sidecar.settings import Freshness

AHEAD, AHEAD_WITHIN = 0.75, 0.2
AUDIT, AUDIT_WITHIN = 0.9, 0.1
"""From which part of ``fresh_for`` and ``audit_every`` on a customer may be due, and within which part each one is."""


class Trust:
    """Judges snapshots. ``seed`` is this process's own, so that replicas do not read the same customers together."""

    def __init__(self, freshness: Freshness, watermarks: Watermarks, *, seed: int) -> None:
        self.freshness = freshness
        self.watermarks = watermarks
        self.verified_at = watermarks.verified_at
        self._least_stale_for = freshness.least_stale_for
        self._stale_for = by_glob(freshness.stale_for_by_glob, freshness.stale_for)
        self._seed = seed
        # Up to which age, and for how long after it was read, a list is surely neither stale nor due.
        audit_every = freshness.audit_every
        self.undoubted_for = min(AHEAD * freshness.fresh_for, self._least_stale_for)
        self.unread_for = AUDIT * audit_every if audit_every else inf

    def bounds(self, snapshot: Snapshot | None, lookup_key: str | None = None) -> tuple[float, float]:
        """Return the ages in seconds up to which a snapshot is fresh, and up to which it may be answered stale.

        What is answered about one ``lookup_key`` goes by its own bound; a whole list, which answers for all of them, by
        the smallest there is.
        """
        if (
            snapshot is not None and snapshot.unknown is not None
        ):  # it may be made at any moment, so there is no stale "unknown"
            return self.freshness.unknown_for, self.freshness.unknown_for
        stale_for = self._least_stale_for if lookup_key is None else self._stale_for(lookup_key)
        return self.freshness.fresh_for, stale_for

    def state(self, snapshot: Snapshot | None, now: float, lookup_key: str | None = None) -> State:
        """Return in which state a customer is at ``now``, for questions about a key or about the whole list."""
        if snapshot is None:
            return State.ABSENT
        age, (fresh_for, stale_for) = now - self.verified_at(snapshot), self.bounds(snapshot, lookup_key)
        if age > stale_for:
            return State.EXPIRED
        if snapshot.dirty is not None:
            return State.DIRTY
        return State.FRESH if age <= fresh_for else State.STALE

    def is_stale(self, snapshot: Snapshot, now: float) -> bool:
        """Tell whether an answer from ``snapshot`` has to be marked."""
        return self.state(snapshot, now) is not State.FRESH

    def is_due(self, snapshot: Snapshot, now: float, age: float) -> bool:
        """Tell whether a customer who is being asked about had better be read again while its list is fresh.

        That is ahead of ``fresh_for``, so that no caller meets a stale answer, and every ``audit_every`` even though
        the feed vouches for the list.
        """
        fresh_for, audit_every = self.freshness.fresh_for, self.freshness.audit_every
        unread = now - snapshot.taken_at
        ahead, audit = age > AHEAD * fresh_for, 0 < AUDIT * audit_every < unread
        if not (ahead or audit) or snapshot.unknown is not None:
            return False
        place = crc32(snapshot.customer.id.encode(), self._seed) / 2**32
        return (ahead and age > (AHEAD + AHEAD_WITHIN * place) * fresh_for) or (
            audit and unread > (AUDIT + AUDIT_WITHIN * place) * audit_every
        )
