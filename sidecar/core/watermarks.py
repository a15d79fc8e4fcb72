"""Up to when the feed has seen every change, and so up to when a list that nothing was heard about is known to be true.

A watermark vouches only for lists that were taken since the feed has been reading without a gap: a span. When a gap is
too long to be read up on, a new span begins; what the old one vouched for stays vouched for, and gets no younger.
"""

from typing import NamedTuple

from sidecar.model import Snapshot

KEPT = 16
"""Spans of an account that are remembered: a list from before all of them is as old as it is."""


class Span(NamedTuple):
    """Between these moments, in Unix seconds, the feed has seen every change."""

    since: float
    until: float


class Watermarks:
    """The spans of each account's feed, the newest last."""

    def __init__(self) -> None:
        self._spans: dict[str | None, tuple[Span, ...]] = {}

    def until(self, account: str | None) -> float | None:
        """Return the account's watermark: every change up to then has been heard of. None without a feed."""
        spans = self._spans.get(account)
        return spans[-1].until if spans else None

    def begin(self, account: str | None, since: float) -> None:
        """Start a span: changes from ``since`` on will be heard of, those before may have been missed."""
        self._spans[account] = (*self._spans.get(account, ())[1 - KEPT :], Span(since, since))

    def advance(self, account: str | None, until: float) -> None:
        """Note that every change of the account up to ``until`` has been heard of."""
        *older, last = self._spans[account]
        self._spans[account] = (*older, last._replace(until=max(last.until, until)))

    def verified_at(self, snapshot: Snapshot) -> float:
        """Return the latest moment, in Unix seconds, at which ``snapshot`` is known to have been true.

        That a customer is made, without entitlements, is no change that the feed hears of; so it never vouches for
        Stripe's not knowing one.
        """
        taken_at = snapshot.taken_at
        if snapshot.dirty is not None:
            return snapshot.dirty.verified_at
        if snapshot.unknown is None:
            for span in reversed(self._spans.get(snapshot.customer.account, ())):
                if taken_at >= span.since:
                    return max(taken_at, span.until)
        return taken_at
