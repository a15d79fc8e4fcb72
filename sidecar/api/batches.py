"""Many checks in one request.

What memory surely knows is written straight from the parsed request: what an answer says of the customer is written once
for all questions about that customer, what it says of a key is remembered. All else takes the way of a single check.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

import orjson
from aiohttp import web

from sidecar.api import answers
from sidecar.api.questions import account_of, lookup_key, parameters, read_batch, read_body, read_check, wishes_of
from sidecar.api.shortcuts import Lasting, Posted, Said
from sidecar.core.checker import Checker, Sure
from sidecar.core.wishes import NO_WISHES
from sidecar.errors import Malformed
from sidecar.kit.tally import Count
from sidecar.wire import Heads

CHECKS = "/v1/checks"

_, ENTITLED = answers.VERDICTS

MOST_KEYS = 4096
"""Lookup keys that are remembered as text: they take about 1 MB, and 11 where all are as long as can be."""


class Keys(dict[Any, str]):
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


class Verdicts(dict[Any, str]):
    """What a list says of a lookup key, as JSON, found once for all customers of a batch with the same plan."""

    def __init__(self, held: frozenset[str], there: Keys, not_there: Keys) -> None:
        super().__init__()
        self._held = held
        self._there = there
        self._not_there = not_there

    def __missing__(self, key: Any) -> str:
        """Look for ``key`` in the list.

        :raises Malformed: when it cannot be one.
        """
        text = self[key] = (self._there if key in self._held else self._not_there)[key]
        return text


class Nothing(dict[Any, str]):
    """What is said of any lookup key when no list is sure."""

    def __missing__(self, _: Any) -> str:
        """Say nothing."""
        return ""


Part = tuple[str, dict[Any, str], str]
"""What all answers about one customer begin with, what they say by lookup key, what they end with."""

NOT_SURE: Part = ("", Nothing(), "")


class Words:
    """What answers are made of, remembered from batch to batch."""

    def __init__(self) -> None:
        self._not_there, self._there = map(Keys, answers.VERDICTS)
        self._moments = answers.Moments()

    def verdicts(self, held: frozenset[str]) -> Verdicts:
        """Return what a list with these lookup keys says of any."""
        return Verdicts(held, self._there, self._not_there)

    def trust(self, as_of: float, age: float, *, stale: bool) -> str:
        """Return how far an answer may be trusted, up to its end."""
        return (
            f',"source":"memory","age":{answers.rounded_up(age)},"stale":{"true" if stale else "false"}'
            f',"as_of":"{self._moments[as_of]}"}}'
        )


class Sheet:
    """A batch whose checks are a customer and a lookup key each, and what memory surely knows of it."""

    def __init__(self, checks: Sequence[Any], checker: Checker, words: Words) -> None:
        """Look for the customers' lists.

        :raises Malformed: when a check is anything else.
        """
        self._checker = checker
        self._words = words
        try:
            self._customers = [check["customer"] for check in checks]
            self._keys = [check["lookup_key"] for check in checks]
            self._sure: dict[Any, Sure | None] = dict.fromkeys(self._customers)
        except (KeyError, TypeError):
            raise Malformed("checks", "are not all as simple as can be") from None
        if sum(map(len, checks)) > 2 * len(checks):
            raise Malformed("checks", "have other members")
        self.now = now = checker.now()
        for customer in self._sure:
            self._sure[customer] = checker.sure(customer, now)

    @property
    def is_whole(self) -> bool:
        """Whether all is sure."""
        return None not in self._sure.values()

    def texts(self) -> list[str]:
        """Return the answers as JSON, as of ``now``; nothing in the place of one that is not sure.

        :raises Malformed: when a lookup key cannot be one.
        """
        parts = map(self._parts().__getitem__, self._customers)
        try:
            return [f"{begin}{says[key]}{end}" for (begin, says, end), key in zip(parts, self._keys, strict=True)]
        except TypeError:
            raise Malformed("checks", "have a lookup key that is no text") from None

    def count(self, told: str) -> None:
        """Count the answers, all of which are given, and all of which, and no others, ``told`` has."""
        ages = [sure[2] for sure in map(self._sure.__getitem__, self._customers) if sure is not None]
        self._checker.count(ages, entitled=told.count(ENTITLED))  # in ids and keys its quotes would be escaped

    def _parts(self) -> dict[Any, Part]:
        """Return what the answers about each customer consist of."""
        now, fresh_for, words = self.now, self._checker.freshness.fresh_for, self._words
        ends: dict[float, str] = {}  # many lists are known to be true as of the same moment, the watermark
        verdicts: dict[frozenset[str], Verdicts] = {}
        parts: dict[Any, Part] = dict.fromkeys(self._sure, NOT_SURE)
        for customer, sure in self._sure.items():
            if sure is not None:
                snapshot, as_of, _, _ = sure
                end = ends.get(as_of)
                if end is None:
                    end = ends[as_of] = words.trust(as_of, now - as_of, stale=now - as_of > fresh_for)
                held = snapshot.plan.lookup_keys
                says = verdicts.get(held)
                if says is None:
                    says = verdicts[held] = words.verdicts(held)
                parts[customer] = f'{{"customer":"{customer}",', says, end
        return parts


class Batches:
    """The handler."""

    def __init__(self, checker: Checker) -> None:
        self._checker = checker
        self._words = Words()
        self._heads = Heads(lambda _: answers.no_store())

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of this surface."""
        return [web.post(CHECKS, self.batch)]

    def shortcuts(self, count: Callable[[str], Count]) -> list[Posted]:
        """Return what of this surface may need nothing but memory; ``count`` gives what counts the answers of a route."""
        return [Posted(CHECKS, count(CHECKS), self.hit)]

    def hit(self, body: bytes, said: Said) -> Lasting | None:
        """Answer a batch all of which memory surely knows; there is no one age by which it might be repeated."""
        is_plain = said.wishes is NO_WISHES and said.account is None
        sheet = Sheet(read_batch(body), self._checker, self._words) if is_plain else None
        if sheet is None or not sheet.is_whole:
            return None
        told = joined(sheet.texts())
        sheet.count(told)
        return Lasting(self._heads, sheet.now, 0.0, -1.0, as_results(told))

    async def batch(self, request: web.Request) -> web.Response:
        """Answer up to 1,000 checks, in order; those that have to wait do so together."""
        wishes, account = wishes_of(request, parameters(request, "default").get("default")), account_of(request)
        checks = read_batch(await read_body(request))
        sheet, texts = self._sure(checks, is_plain=wishes is NO_WISHES and account is None)
        left = [place for place, text in enumerate(texts) if not text]
        questions = {place: read_check(checks[place], f"checks[{place}]", account) for place in left}
        if sheet is not None:
            sheet.count(joined(texts))
        made = {place: self._checker.answer(*question, wishes) for place, question in questions.items()}
        later = [place for place, decision in made.items() if decision is None]
        if later:
            waited = await asyncio.gather(*(self._checker.check(*questions[place], wishes) for place in later))
            made |= zip(later, waited, strict=True)
            made = {place: decision and self._checker.aged(decision) for place, decision in made.items()}
            if sheet is not None:
                sheet.now = self._checker.now()
                texts = sheet.texts()
        for place, decision in made.items():
            if decision is not None:
                texts[place] = orjson.dumps(answers.decision(decision)).decode()
        return web.Response(body=as_results(joined(texts)), content_type="application/json", headers=answers.no_store())

    def _sure(self, checks: Sequence[Any], *, is_plain: bool) -> tuple[Sheet | None, list[str]]:
        """Return what is sure, and its texts; nothing when there is to be read more closely what is asked."""
        with suppress(Malformed):  # ``read_check`` says what is wrong, and where; or that nothing is
            if is_plain:
                sheet = Sheet(checks, self._checker, self._words)
                return sheet, sheet.texts()
        return None, [""] * len(checks)


def joined(texts: Iterable[str]) -> str:
    """Return those that are not empty, as members of an array."""
    return ",".join(filter(None, texts))


def as_results(told: str) -> bytes:
    """Return the body of the answer to a batch."""
    return f'{{"results":[{told}]}}'.encode()
