"""Many checks in one request.

What memory surely knows is written straight from the parsed request: what an answer says of the customer is written once
for all questions about that customer, what it says of a key is remembered. All else takes the way of a single check.
"""

import asyncio
from collections.abc import Sequence
from math import ceil
from typing import Any

import orjson
from aiohttp import web

from sidecar.api import answers
from sidecar.api.questions import account_of, lookup_key, parameters, read_batch, read_check, wishes_of
from sidecar.core.checker import Checker, Sure
from sidecar.core.wishes import NO_WISHES
from sidecar.errors import Malformed

CHECKS = "/v1/checks"

MOST_KEYS = 4096
"""Lookup keys that are remembered as text: they take about 1 MB."""


class Keys(dict[str, str]):
    """What answers say of a lookup key, as JSON; ``verdict`` is the same for all."""

    def __init__(self, verdict: str) -> None:
        super().__init__()
        self._verdict = verdict

    def __missing__(self, key: Any) -> str:
        """Write what is said of ``key``.

        :raises Malformed: when it cannot be one.
        """
        if len(self) >= MOST_KEYS:
            self.clear()
        text = self[key] = f'"lookup_key":{orjson.dumps(lookup_key(key)).decode()},{self._verdict}'
        return text


class Group:
    """What the answers about one customer have in common, as JSON, and how many there are."""

    __slots__ = ("after", "before", "entitled", "lookup_keys", "not_entitled", "sure")

    def __init__(self, sure: Sure, after: str) -> None:
        snapshot = sure.snapshot
        self.sure = sure
        self.before = f'{{"customer":"{snapshot.customer.id}",'
        self.lookup_keys = snapshot.plan.lookup_keys
        self.after = after
        self.entitled = 0
        self.not_entitled = 0


class Groups(dict[Any, Group | None]):
    """The groups of a batch, by customer id; None for one whose list is not sure."""

    def __init__(self, checker: Checker, moments: answers.Moments) -> None:
        super().__init__()
        self._checker = checker
        self._moments = moments
        self._now = checker.now()
        self._after: dict[float, str] = {}

    def __missing__(self, customer_id: Any) -> Group | None:
        """Look for the customer's list; what is no id has none."""
        sure = self._checker.sure(customer_id, self._now)
        group = None if sure is None else Group(sure, self._after.get(sure.as_of) or self._trust(sure.as_of, sure.age))
        self[customer_id] = group
        return group

    def count(self) -> None:
        """Count the answers, all of which are given."""
        for group in filter(None, self.values()):
            self._checker.count(group.sure.age, entitled=group.entitled, not_entitled=group.not_entitled)

    def grow_older(self) -> None:
        """Say how old the lists are by now."""
        now = self._checker.now()
        for group in filter(None, self.values()):
            age = now - group.sure.as_of
            group.after = self._trust(group.sure.as_of, age, stale=age > self._checker.freshness.fresh_for)

    def _trust(self, as_of: float, age: float, *, stale: bool = False) -> str:
        """Write how far an answer may be trusted; many lists are known to be true as of the same moment."""
        seconds, thousandths = divmod(ceil(age * 1000), 1000)
        text = self._after[as_of] = (
            f'"source":"memory","age":{seconds}.{thousandths:03d},"stale":{"true" if stale else "false"},'
            f'"as_of":"{self._moments[as_of]}"}}'
        )
        return text


class Batches:
    """The handler."""

    def __init__(self, checker: Checker) -> None:
        self._checker = checker
        self._moments = answers.Moments()
        self._not_entitled, self._entitled = map(Keys, answers.VERDICTS)

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of this surface."""
        return [web.post(CHECKS, self.batch)]

    async def batch(self, request: web.Request) -> web.Response:
        """Answer up to 1,000 checks, in order; those that have to wait do so together."""
        wishes, account = wishes_of(request, parameters(request, "default").get("default")), account_of(request)
        checks, groups = await read_batch(request), Groups(self._checker, self._moments)
        is_plain = wishes is NO_WISHES and account is None
        texts: list[str | None] = self._written(checks, groups) if is_plain else [None] * len(checks)
        left = [place for place, text in enumerate(texts) if text is None]
        questions = {place: read_check(checks[place], f"checks[{place}]", account) for place in left}
        groups.count()
        made = {place: self._checker.answer(*question, wishes) for place, question in questions.items()}
        later = [place for place, decision in made.items() if decision is None]
        if later:
            waited = await asyncio.gather(*(self._checker.check(*questions[place], wishes) for place in later))
            made |= zip(later, waited, strict=True)
            made = {place: decision and self._checker.aged(decision) for place, decision in made.items()}
            groups.grow_older()  # what was written for them has a younger age
            texts = self._written(checks, groups) if is_plain else texts
        for place, decision in made.items():
            if decision is not None:
                texts[place] = orjson.dumps(answers.decision(decision)).decode()
        body = f'{{"results":[{",".join(filter(None, texts))}]}}'
        return web.Response(body=body.encode(), content_type="application/json", headers=answers.no_store())

    def _written(self, checks: Sequence[Any], groups: Groups) -> list[str | None]:
        """Return the answers that are sure, as JSON; None in the place of each other one."""
        texts: list[str | None] = []
        entitled, not_entitled = self._entitled, self._not_entitled
        for check in checks:
            text = None
            try:
                group, key = groups[check["customer"]], check["lookup_key"]
                if group is None or len(check) != 2:
                    pass
                elif key in group.lookup_keys:
                    text = f"{group.before}{entitled[key]},{group.after}"
                    group.entitled += 1
                else:
                    text = f"{group.before}{not_entitled[key]},{group.after}"
                    group.not_entitled += 1
            except (KeyError, TypeError, Malformed):  # it is read again, with the words to refuse it
                pass
            texts.append(text)
        return texts
