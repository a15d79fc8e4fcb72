"""Many checks in one request.

What memory surely knows is written straight from the parsed request: what an answer says of the customer is written once
for all questions about that customer, what it says of a key once for all customers with the same plan. All else takes
the way of a single check.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import orjson
from aiohttp import web

from sidecar.api import answers
from sidecar.api.questions import account_of, lookup_key, parameters, read_batch, read_body, read_check, wishes_of
from sidecar.api.shortcuts import Lasting, Posted, Said
from sidecar.core.checker import Checker, Sure
from sidecar.core.wishes import NO_WISHES, Wishes
from sidecar.errors import Malformed
from sidecar.kit.tally import Count
from sidecar.model import Customer, Decision
from sidecar.wire import Heads

CHECKS = "/v1/checks"

_, ENTITLED = answers.VERDICTS

MOST_SAID = 4096
"""Lookup keys, of each plan by itself, that are remembered as text: they take about 1 MB."""


class Verdicts(dict[Any, str]):
    """What a list with the lookup keys ``held`` says of any, as JSON."""

    def __init__(self, held: frozenset[str], said: Count) -> None:
        super().__init__()
        self._held = held
        self._said = said

    def __missing__(self, key: Any) -> str:
        """Write what is said of ``key``.

        :raises Malformed: when it cannot be one.
        """
        self._said.n += 1
        text = f'"lookup_key":{orjson.dumps(lookup_key(key)).decode()},{answers.VERDICTS[key in self._held]}'
        self[key] = text
        return text


class Words:
    """What answers are made of, remembered from batch to batch: most customers have one of a few plans."""

    def __init__(self) -> None:
        self._moments = answers.Moments()
        self._verdicts: dict[frozenset[str], Verdicts] = {}
        self._said = Count()

    def of_list(self, held: frozenset[str]) -> Verdicts:
        """Return what a list with these lookup keys says of any."""
        found = self._verdicts.get(held)
        if found is None:
            found = self._verdicts[held] = Verdicts(held, self._said)
        return found

    def of_age(self, as_of: float, age: float, *, stale: bool) -> str:
        """Return how far an answer may be trusted, up to its end."""
        return (
            f',"source":"memory","age":{answers.rounded_up(age)},"stale":{"true" if stale else "false"}'
            f',"as_of":"{self._moments[as_of]}"}}'
        )

    def forget(self) -> None:
        """Begin anew when there are too many."""
        if self._said.n >= MOST_SAID:
            self._verdicts.clear()
            self._said.n = 0


class Sheet:
    """The answers of a batch that memory surely knows, as JSON: ``texts`` has None in the place of each other one."""

    def __init__(self, checks: Sequence[Any], checker: Checker, words: Words) -> None:
        """Look for the customers' lists.

        :raises KeyError, TypeError, Malformed: when a check is anything but a customer and a lookup key.
        """
        self._customers = [check["customer"] for check in checks]
        self._keys = [check["lookup_key"] for check in checks]
        if sum(map(len, checks)) > 2 * len(checks):
            raise KeyError("one has more members")
        self._checker = checker
        self._words = words
        self.now = now = checker.now()
        self._sure: dict[Any, Sure | None] = dict.fromkeys(self._customers)
        for customer in self._sure:
            self._sure[customer] = checker.sure(customer, now)
        self.texts = self._written(now)

    def grow_older(self) -> None:
        """Say how old the lists are by now."""
        self.texts[:] = self._written(self._checker.now())

    def tell(self) -> str:
        """Count the answers, all of which are given, and return them, with a comma in between."""
        ages = [sure[2] for sure in map(self._sure.__getitem__, self._customers) if sure is not None]
        text = ",".join(filter(None, self.texts))
        self._checker.count(ages, entitled=text.count(ENTITLED))  # in ids and keys its quotes would be escaped
        return text

    def _written(self, now: float) -> list[str | None]:
        words, fresh_for = self._words, self._checker.freshness.fresh_for
        words.forget()
        trusts: dict[float, str] = {}  # many lists are known to be true as of the same moment, the watermark
        parts: dict[Any, tuple[str, Verdicts, str] | None] = dict.fromkeys(self._sure)
        for customer, sure in self._sure.items():
            if sure is not None:
                snapshot, as_of, _, _ = sure
                after = trusts.get(as_of)
                if after is None:
                    after = trusts[as_of] = words.of_age(as_of, now - as_of, stale=now - as_of > fresh_for)
                parts[customer] = f'{{"customer":"{customer}",', words.of_list(snapshot.plan.lookup_keys), after
        return [
            None if (part := parts[customer]) is None else f"{part[0]}{part[1][key]}{part[2]}"
            for customer, key in zip(self._customers, self._keys, strict=True)
        ]


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
        sheet = self._sheet(read_batch(body)) if is_plain else None
        if sheet is None or None in sheet.texts:
            return None
        return Lasting(self._heads, sheet.now, 0.0, -1.0, as_results(sheet.tell()))

    async def batch(self, request: web.Request) -> web.Response:
        """Answer up to 1,000 checks, in order; those that have to wait do so together."""
        wishes, account = wishes_of(request, parameters(request, "default").get("default")), account_of(request)
        checks = read_batch(await read_body(request))
        sheet = self._sheet(checks) if wishes is NO_WISHES and account is None else None
        texts: list[str | None] = [None] * len(checks) if sheet is None else sheet.texts
        left = [place for place, text in enumerate(texts) if text is None] if None in texts else []
        questions = {place: read_check(checks[place], f"checks[{place}]", account) for place in left}
        told = "" if sheet is None else sheet.tell()
        if questions:
            made = await self._made(questions, wishes)
            if sheet is not None:
                sheet.grow_older()
            for place, decision in made.items():
                texts[place] = orjson.dumps(answers.decision(decision)).decode()
            told = ",".join(filter(None, texts))
        return web.Response(body=as_results(told), content_type="application/json", headers=answers.no_store())

    async def _made(self, questions: dict[int, tuple[Customer, str]], wishes: Wishes) -> dict[int, Decision]:
        """Answer what is not sure; who had not to wait tells the age of after the others have."""
        made = {place: self._checker.answer(*question, wishes) for place, question in questions.items()}
        later = [place for place, decision in made.items() if decision is None]
        waited = await asyncio.gather(*(self._checker.check(*questions[place], wishes) for place in later))
        made |= zip(later, waited, strict=True)
        return {place: self._checker.aged(decision) for place, decision in made.items() if decision is not None}

    def _sheet(self, checks: Sequence[Any]) -> Sheet | None:
        """Answer what is sure; None when a check is anything but plain: it is then read with the words to refuse it."""
        try:
            return Sheet(checks, self._checker, self._words)
        except (KeyError, TypeError, Malformed):
            return None


def as_results(told: str) -> bytes:
    """Return the body of the answer to a batch."""
    return f'{{"results":[{told}]}}'.encode()
