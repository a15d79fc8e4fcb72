"""Up to when the feed has seen every change, and so up to when a list that nothing was heard about is known to be true.

A watermark vouches only for lists that were taken since the feed has been reading without a gap: a span. When a gap is
too long to be read up on, a new span begins; what the old one vouched for stays vouched for, and gets no younger.
"""

from collections.abc import Callable, Mapping
from math import inf

from sidecar.model import Snapshot, Span, Spans, advanced, begun, verified_at

NO_SPAN = Span(-inf, -inf)


def newest(spans: Spans) -> Span:
    """Return the last of ``spans``, or one that vouches for nothing."""
    return spans[-1] if spans else NO_SPAN


class Watermarks:
    """The spans of each account's feed, the newest last; ``spans`` are those that an earlier process left.

    ``own`` is the last one of the key's own account, which nearly all are asked about. The functions in ``then`` are
    called when they change.
    """

    def __init__(self, spans: Mapping[str | None, Spans] | None = None) -> None:
        self.then: list[Callable[[], None]] = []
        self._spans: dict[str | None, Spans] = dict(spans or {})
        self.own = newest(self.spans(None))

    def spans(self, account: str | None) -> Spans:
        """Return the account's spans."""
        return self._spans.get(account, ())

    def accounts(self) -> list[str | None]:
        """Return the accounts that have a watermark; None is the key's own."""
        return list(self._spans)

    def until(self, account: str | None) -> float | None:
        """Return the account's watermark: every change up to then has been heard of. None without a feed."""
        spans = self._spans.get(account)
        return spans[-1].until if spans else None

    def begin(self, account: str | None, since: float) -> None:
        """Start a span: changes from ``since`` on will be heard of, those before may have been missed."""
        self._set(account, begun(self.spans(account), since))

    def advance(self, account: str | None, until: float) -> None:
        """Note that every change of the account up to ``until`` has been heard of."""
        self._set(account, advanced(self._spans[account], until))

    def _set(self, account: str | None, spans: Spans) -> None:
        self._spans[account] = spans
        self.own = newest(self.spans(None))
        for tell in self.then:
            tell()

    def verified_at(self, snapshot: Snapshot) -> float:
        """Return the latest moment, in Unix seconds, at which ``snapshot`` is known to have been true."""
        return verified_at(snapshot, self.spans(snapshot.customer.account))
