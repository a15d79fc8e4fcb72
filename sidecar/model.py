"""The facts: what Stripe said, when, and what follows from it. All are frozen, but for the log of a flight."""

import re
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NamedTuple, Self

from sidecar.errors import NoAnswer, UnknownCustomer, UpstreamError
from sidecar.kit.limiter import Urgency

CUSTOMER_ID = re.compile(r"[A-Za-z0-9_]{1,255}")
ACCOUNT_ID = re.compile(r"acct_[A-Za-z0-9_]{1,250}")
"""What Stripe's ids are made of: nothing else is asked about, so nothing else can be news."""


class Customer(NamedTuple):
    """Who is asked about. A customer id is unique only within its account (and mode, which a process has one of).

    ``account`` is a connected account's id, or None for the account that owns the API key.
    """

    id: str
    account: str | None = None

    def __str__(self) -> str:
        return f"{self.account}/{self.id}" if self.account else self.id


class Feature(NamedTuple):
    """A feature of the catalogue. Two features may share one lookup key: an archived one's may be used again."""

    id: str
    lookup_key: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What a list entitles to, in Stripe's order; customers with equal plans share one of these in memory."""

    features: tuple[Feature, ...]
    lookup_keys: frozenset[str] = field(compare=False)

    @classmethod
    def of(cls, features: tuple[Feature, ...]) -> Self:
        """Make a plan of features in Stripe's order."""
        return cls(features, frozenset(feature.lookup_key for feature in features))


NOTHING = Plan.of(())


class Entitlement(NamedTuple):
    """One active entitlement, by its own id."""

    id: str
    feature: Feature


SEPARATOR = "\n"
"""What stands between packed ids, and so in none of them; Stripe's are letters, digits and underscores."""


def packed(ids: Collection[str]) -> str:
    """Return ids as one text, which takes half the memory that they take one by one.

    :raises ValueError: when there is an empty one, or one with a separator in it: it would not come back.
    """
    together = SEPARATOR.join(ids)
    if not all(ids) or together.count(SEPARATOR) != max(0, len(ids) - 1):
        raise ValueError("an id that is empty, or has a line break in it")
    return together


class Unknown(NamedTuple):
    """Stripe's refusal to list a customer that it does not know: its HTTP status and its own words."""

    status: int
    message: str

    @property
    def code(self) -> str:
        """``wrong_mode`` when Stripe adds that the other mode has such a customer, else ``unknown_customer``."""
        return UnknownCustomer(*self).code


class Dirty(NamedTuple):
    """There was news since the list was taken: when it was last heard, and up to when the list is known to be true.

    Both are Unix seconds. ``verified_at`` is from before the news: what the feed verifies later says nothing of a list
    that changed.
    """

    heard_at: float
    verified_at: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One complete list of a customer's active entitlements.

    ``taken_at`` is the moment, in Unix seconds, just before its first page was asked for. ``packed_ids`` are the
    entitlements' own ids, in Stripe's order. ``unknown`` is Stripe's refusal when it knows no such customer; the list is
    then empty. ``dirty`` is there once it may have changed.
    """

    customer: Customer
    taken_at: float
    plan: Plan = NOTHING
    packed_ids: str = ""
    unknown: Unknown | None = None
    dirty: Dirty | None = None

    @property
    def ids(self) -> tuple[str, ...]:
        """The entitlements' own ids in Stripe's order, unpacked each time."""
        return tuple(self.packed_ids.split(SEPARATOR)) if self.packed_ids else ()

    @property
    def entitlements(self) -> list[Entitlement]:
        """The entitlements in Stripe's order."""
        return [Entitlement(*pair) for pair in zip(self.ids, self.plan.features, strict=True)]


class Span(NamedTuple):
    """Between these moments, in Unix seconds, the feed has seen every change of an account."""

    since: float
    until: float


Spans = tuple[Span, ...]
"""An account's, the newest last."""


KEPT_SPANS = 16
"""Spans of an account that are remembered: a list from before all of them is as old as it is."""


def begun(spans: Spans, since: float) -> Spans:
    """Return ``spans`` and a new one: changes from ``since`` on will be heard of, those before may have been missed."""
    return (*spans[1 - KEPT_SPANS :], Span(since, since))


def advanced(spans: Spans, until: float) -> Spans:
    """Return ``spans``, the newest of which now reaches to ``until``: every change up to then has been heard of."""
    *older, last = spans
    return (*older, last._replace(until=max(last.until, until)))


def verified_at(snapshot: Snapshot, spans: Spans) -> float:
    """Return the latest moment, in Unix seconds, at which ``snapshot`` is known to have been true.

    A span vouches only for lists that were taken in it: when the feed missed something, what an older span vouched
    for stays vouched for, and gets no younger. That a customer is made, without entitlements, is no change that the
    feed hears of; so it never vouches for Stripe's not knowing one.
    """
    taken_at = snapshot.taken_at
    if snapshot.dirty is not None:
        return snapshot.dirty.verified_at
    if snapshot.unknown is None:
        for span in reversed(spans):
            if taken_at >= span.since:
                return max(taken_at, span.until)
    return taken_at


def marked(snapshot: Snapshot, heard_at: float, spans: Spans) -> Snapshot:
    """Return ``snapshot``, dirty from ``heard_at`` on: it is known to be true up to where it was before the news."""
    return replace(snapshot, dirty=Dirty(heard_at, verified_at(snapshot, spans)))


class Reason(StrEnum):
    """Why a decision is what it is. There are three different no's; only the first is a fact about a feature."""

    ENTITLED = "entitled"
    NOT_ENTITLED = "not_entitled"
    UNKNOWN_CUSTOMER = "unknown_customer"
    UNAVAILABLE = "unavailable"


class Source(StrEnum):
    """Where an answer came from."""

    MEMORY = "memory"
    STORE = "store"
    UPSTREAM = "upstream"
    POLICY = "policy"


class Policy(StrEnum):
    """What to answer when nothing trustworthy is at hand."""

    DENY = "deny"
    ALLOW = "allow"
    ERROR = "error"


class State(StrEnum):
    """How far what is in memory may be trusted."""

    FRESH = "fresh"
    STALE = "stale"
    DIRTY = "dirty"
    EXPIRED = "expired"
    ABSENT = "absent"


class Finding(NamedTuple):
    """A snapshot that may be answered from, with what the answer has to state of it.

    ``as_of`` is the moment, in Unix seconds, at which it was last known to be true; ``age`` the seconds since then.
    """

    snapshot: Snapshot
    source: Source
    as_of: float
    age: float
    stale: bool


class Decision(NamedTuple):
    """The answer to one check. ``entitled`` is None when the policy says that this is for the caller to handle.

    A ``policy``'s answer has no ``finding``, hence no age to state; ``missing`` says why nothing better is known.
    """

    customer: Customer
    lookup_key: str
    entitled: bool | None
    reason: Reason
    source: Source
    finding: Finding | None = None
    policy: Policy | None = None
    missing: NoAnswer | None = None


def decide(finding: Finding, lookup_key: str) -> Decision:
    """Answer from a snapshot: entitled when any active entitlement has the lookup key, compared byte for byte."""
    snapshot = finding.snapshot
    entitled = lookup_key in snapshot.plan.lookup_keys
    if entitled:
        reason = Reason.ENTITLED
    elif snapshot.unknown is None:
        reason = Reason.NOT_ENTITLED
    else:
        reason = Reason.UNKNOWN_CUSTOMER
    return Decision(snapshot.customer, lookup_key, entitled, reason, finding.source, finding)


POLICY_ANSWERS = {Policy.DENY: False, Policy.ALLOW: True, Policy.ERROR: None}


def decide_by_policy(customer: Customer, lookup_key: str, policy: Policy, missing: NoAnswer) -> Decision:
    """Answer without knowledge, and say so."""
    entitled = POLICY_ANSWERS[policy]
    return Decision(customer, lookup_key, entitled, Reason.UNAVAILABLE, Source.POLICY, policy=policy, missing=missing)


KEPT_EXCHANGES = 16
"""Requests of one flight that are kept, the last ones; more than a flight without trouble has."""


@dataclass(slots=True)
class Exchange:
    """One request to Stripe and what came of it: an HTTP status, or the code of the error without one."""

    asked_at: float
    outcome: str
    request_id: str | None


@dataclass(slots=True)
class Flight:
    """The log of one refresh: written while it is under way, kept to explain answers afterwards.

    ``urgency`` is why the list is read, and rises when somebody more urgent joins. ``prepaid`` says that the budget has already given the token for its first request; ``trouble`` is why the last
    attempt came to nothing, while another one may follow; ``dirty`` when there was news while it was in the air.
    """

    took_off: float
    exchanges: deque[Exchange] = field(default_factory=lambda: deque(maxlen=KEPT_EXCHANGES))
    pages: int = 0
    landed: float | None = None
    outcome: str | None = None
    detail: str | None = None
    urgency: Urgency = Urgency.CALLER
    prepaid: bool = False
    trouble: tuple[type[UpstreamError], str] | None = None
    dirty: Dirty | None = None
