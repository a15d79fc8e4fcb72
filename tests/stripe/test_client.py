"""The way to Stripe: what is sent and how often, what comes of each kind of failure, and what is never shown."""

import asyncio
import logging
import socket
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, cast

import aiohttp
import pytest
from aiohttp import web

from sidecar.demo import FakeStripe, Fault, Seen, serving
from sidecar.errors import (
    Broken,
    CircuitOpen,
    KeyRejected,
    OverBudget,
    PermissionMissing,
    RequestRejected,
    Throttled,
    Unreachable,
    UpstreamError,
)
from sidecar.kit.breaker import FAILURES, State
from sidecar.kit.bucket import LEAST
from sidecar.kit.clock import Clock, steady_clock
from sidecar.kit.limiter import Limiter, Urgency
from sidecar.model import Customer, Flight, Snapshot
from sidecar.parts import upstream_session
from sidecar.stripe.answers import Answer
from sidecar.stripe.client import WITHOUT, StripeClient
from sidecar.stripe.events import EVENTS_PATH, NEWS
from sidecar.stripe.key import ApiKey
from sidecar.stripe.manners import Manners
from sidecar.stripe.transport import BODY, Transport
from tests.fakes import KEY, FakeClock
from tests.kit.virtual import play

ADA = Customer("cus_ada")
VERSION = "2026-10-28.endive"
NEW_KEY = "sk_test_52TheKeyAfterTheRotation"
Handler = Callable[[web.Request], web.StreamResponse]


class Impatient:
    """A session that waits a twentieth of a second and no longer."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    def get(self, *args: Any, **options: Any) -> Any:
        return self._session.get(*args, **options | {"timeout": aiohttp.ClientTimeout(total=0.05)})


class Reader:
    """A client put together by hand, that retries at once; keeps the log of each flight."""

    def __init__(
        self,
        base: str,
        session: aiohttp.ClientSession,
        *,
        key: ApiKey | None = None,
        limiter: Limiter | None = None,
        clock: Clock | None = None,
        **manners: Any,
    ) -> None:
        self.clock = clock or steady_clock()
        self.limiter = limiter or Limiter(rate=100_000, burst=100_000, clock=self.clock)
        self.client = StripeClient(
            Transport(session, self.limiter),
            key or ApiKey(KEY),
            Manners(base, VERSION, **{"initial": 0, "jitter": 0, "longest": 0} | manners),
            limiter=self.limiter,
            clock=self.clock,
        )
        self.flights: list[Flight] = []

    async def fetch(self, customer: Customer = ADA) -> Snapshot:
        self.flights.append(Flight(self.clock()))
        return await self.client.fetch(customer, self.flights[-1])

    async def failure(self, customer: Customer = ADA) -> UpstreamError:
        with pytest.raises(UpstreamError) as caught:
            await self.fetch(customer)
        return caught.value

    @property
    def outcomes(self) -> list[str]:
        """What each request of the last flight came to."""
        return [exchange.outcome for exchange in self.flights[-1].exchanges]

    @property
    def counted(self) -> dict[tuple[str, str], int]:
        return {labels: count for labels, count in self.client.requests.items() if count}


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with upstream_session() as found:
        yield found


@pytest.fixture
def reader(upstream: str, session: aiohttp.ClientSession) -> Reader:
    return Reader(upstream, session)


@asynccontextmanager
async def answering(handler: Handler) -> AsyncIterator[str]:
    """Serve something that is not the built-in Stripe, and yield its base URL."""

    async def handle(request: web.Request) -> web.StreamResponse:
        return handler(request)

    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.05)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def fill(stripe: FakeStripe, count: int) -> dict[str, str]:
    """Grant so many entitlements and give their lookup keys by id, newest first."""
    stripe.add_customer("cus_ada")
    keys = [f"feature-{number:03}" for number in range(count)]
    return dict([(stripe.grant("cus_ada", key), key) for key in keys][::-1])


def never_refilled(burst: int) -> Limiter:
    return Limiter(rate=1e-6, burst=burst, clock=steady_clock())


def rotate(file: Path, key: str) -> None:
    file.write_text(key)


class TestARead:
    @pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 99, 100, 101, 250])
    async def test_is_complete(self, stripe: FakeStripe, reader: Reader, count: int) -> None:
        """Every entitlement is there, in Stripe's order, with a request per hundred."""
        granted = fill(stripe, count)
        snapshot = await reader.fetch()
        assert {e.id: e.feature.lookup_key for e in snapshot.entitlements} == granted
        assert list(snapshot.ids) == list(granted)
        pages = max(1, -(-count // 100))
        assert (stripe.count(), reader.flights[-1].pages) == (pages, pages)
        assert reader.counted == {("list", "200"): pages}
        assert (reader.client.health.state, sum(reader.client.durations.counts)) == ("ok", pages)

    async def test_says_which_version_and_whose_customer(self, stripe: FakeStripe, reader: Reader) -> None:
        """Each request carries the pinned version and, for a connected account's customer, the account."""
        stripe.grant("cus_ada", "sso", account="acct_1")
        stripe.grant("cus_ada", "audit-log")
        await reader.fetch()
        there = await reader.fetch(Customer("cus_ada", "acct_1"))
        assert there.plan.lookup_keys == {"sso"}
        assert [seen.headers["Stripe-Version"] for seen in stripe.requests] == [VERSION] * 2
        assert [seen.account for seen in stripe.requests] == [None, "acct_1"]
        assert "Stripe-Account" not in stripe.requests[0].headers
        assert stripe.requests[0].query == {"customer": "cus_ada", "limit": "100"}

    async def test_keeps_stripes_ids_of_its_requests(self, stripe: FakeStripe, reader: Reader) -> None:
        """Each exchange of a flight has the id under which Stripe logs it."""
        fill(stripe, 250)
        stripe.break_with(Fault.ERROR, after=1, times=1)
        await reader.fetch()
        exchanges = reader.flights[-1].exchanges
        assert [(e.outcome, e.request_id) for e in exchanges] == [
            (str(seen.status), seen.request_id) for seen in stripe.requests
        ]
        assert reader.outcomes == ["200", "500", "200", "200"]

    async def test_was_true_when_its_first_page_was_asked_for(self, session: aiohttp.ClientSession) -> None:
        """`taken_at` lies before the first page's request and behind every request of before."""
        clock = steady_clock()
        stripe = FakeStripe(key=KEY, clock=clock)
        fill(stripe, 250)
        async with serving(stripe) as url:
            reader = Reader(url, session, clock=clock)
            stripe.break_with(Fault.ERROR, times=2)
            snapshot = await reader.fetch()
        at = [seen.at for seen in stripe.requests]
        assert len(at) == 5
        assert at[1] < snapshot.taken_at < at[2]
        assert snapshot.taken_at == reader.flights[-1].exchanges[2].asked_at

    async def test_of_a_customer_without_entitlements_is_empty(self, stripe: FakeStripe, reader: Reader) -> None:
        """Nothing is a fact as well."""
        stripe.add_customer("cus_ada")
        snapshot = await reader.fetch()
        assert (snapshot.ids, snapshot.unknown) == ((), None)


class TestAnUnknownCustomer:
    async def test_is_a_fact_and_no_failure(self, stripe: FakeStripe, reader: Reader) -> None:
        """An empty snapshot with Stripe's refusal, as of the moment before it was asked; nothing is retried."""
        snapshot = await reader.fetch(Customer("cus_nope"))
        assert snapshot.unknown is not None
        assert snapshot.unknown.message == "No such customer: 'cus_nope'"
        assert (snapshot.ids, snapshot.taken_at) == ((), reader.flights[-1].exchanges[0].asked_at)
        assert (stripe.count(), reader.outcomes, reader.counted) == (1, ["400"], {("list", "400"): 1})
        assert reader.client.health.state == "ok"

    async def test_that_vanished_between_two_pages_is_unknown(self, stripe: FakeStripe, reader: Reader) -> None:
        """What was read before is not used."""
        fill(stripe, 150)
        stripe.on_request = lambda seen: stripe.delete_customer("cus_ada") if "starting_after" in seen.query else None
        snapshot = await reader.fetch()
        assert snapshot.unknown is not None
        assert snapshot.ids == ()

    async def test_of_the_other_mode_is_said_loudly(
        self, stripe: FakeStripe, reader: Reader, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Every customer would be unknown: one of key and customers is misconfigured."""
        stripe.other_mode_customers.add("cus_ada")
        snapshot = await reader.fetch()
        assert snapshot.unknown is not None
        assert snapshot.unknown.code == "wrong_mode"
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert caplog.messages[0].startswith(
            "the API key is of another mode than a customer it is asked about: No such"
        )

    async def test_of_no_mode_is_not_worth_a_line(self, reader: Reader, caplog: pytest.LogCaptureFixture) -> None:
        """Anyone can make an id up."""
        await reader.fetch(Customer("cus_nope"))
        assert not caplog.messages


class TestAFault:
    @pytest.mark.parametrize(
        ("fault", "kind", "requests", "outcome"),
        [
            (Fault.ERROR, Broken, 4, "500"),
            (Fault.THROTTLED, Throttled, 4, "429"),
            (Fault.LOCK_TIMEOUT, Throttled, 4, "429"),
            (Fault.HTML, Broken, 4, "502"),
            (Fault.NOT_JSON, Broken, 4, "200"),
            (Fault.HALF, Broken, 4, "broken"),
            (Fault.RESET, Unreachable, 8, "unreachable"),  # each attempt twice: aiohttp repeats a dropped request
            (Fault.OTHER_MODE, Broken, 1, "200"),
        ],
    )
    async def test_that_lasts_fails_the_fetch(
        self,
        stripe: FakeStripe,
        reader: Reader,
        fault: Fault,
        kind: type[UpstreamError],
        requests: int,
        outcome: str,
    ) -> None:
        """Four attempts where another may help, one where it cannot; then the error says what it was."""
        fill(stripe, 1)
        stripe.break_with(fault)
        error = await reader.failure()
        assert type(error) is kind
        assert stripe.count() == requests
        assert set(reader.outcomes) == {outcome}
        assert sum(reader.client.requests.values()) == requests
        health = reader.client.health
        assert health.state == error.code
        assert health.last_failure is not None
        assert health.last_failure.detail == str(error)

    @pytest.mark.parametrize(
        "fault", [Fault.ERROR, Fault.THROTTLED, Fault.LOCK_TIMEOUT, Fault.HTML, Fault.NOT_JSON, Fault.HALF]
    )
    async def test_that_passes_is_outlasted(self, stripe: FakeStripe, reader: Reader, fault: Fault) -> None:
        """Three failures are survived by the fourth attempt, and the list is whole."""
        granted = fill(stripe, 3)
        stripe.break_with(fault, times=3)
        assert list((await reader.fetch()).ids) == list(granted)
        assert stripe.count() == 4
        assert reader.client.health.state == "ok"

    async def test_of_the_limiter_says_which(self, stripe: FakeStripe, reader: Reader) -> None:
        """Only a limiter's 429 has a reason; a lock that timed out has none, and no request id."""
        fill(stripe, 1)
        stripe.break_with(Fault.THROTTLED)
        error = await reader.failure()
        assert isinstance(error, Throttled)
        assert (error.reason, error.request_id) == ("endpoint-rate", stripe.requests[-1].request_id)
        stripe.break_with(Fault.LOCK_TIMEOUT)
        error = await reader.failure()
        assert isinstance(error, Throttled)
        assert (error.reason, error.request_id) == (None, None)

    @pytest.mark.parametrize(("fault", "requests"), [(Fault.ENDLESS, 1), (Fault.REPEATED, 2)])
    async def test_in_the_pages_is_no_list(
        self, stripe: FakeStripe, reader: Reader, fault: Fault, requests: int
    ) -> None:
        """Pages without progress end the read at once: asking again would not make sense of them."""
        fill(stripe, 3)
        stripe.break_with(fault)
        error = await reader.failure()
        assert type(error) is Broken
        assert (stripe.count(), reader.flights[-1].pages) == (requests, requests)

    async def test_that_hangs_is_a_timeout(
        self, stripe: FakeStripe, upstream: str, session: aiohttp.ClientSession
    ) -> None:
        """No answer in time is Unreachable, and worth another attempt."""
        fill(stripe, 1)
        stripe.break_with(Fault.HANG)
        reader = Reader(upstream, cast("aiohttp.ClientSession", Impatient(session)), attempts=2)
        error = await reader.failure()
        assert type(error) is Unreachable
        assert str(error) == f"no answer from {upstream} in time"
        assert reader.counted == {("list", "unreachable"): 2}
        stripe.break_with(None)

    async def test_that_is_slow_is_none(self, stripe: FakeStripe, reader: Reader) -> None:
        """A true answer that comes late is the answer."""
        granted = fill(stripe, 1)
        stripe.break_with(Fault.SLOW, delay=0.02)
        assert list((await reader.fetch()).ids) == list(granted)

    @pytest.mark.parametrize("page", [1, 2])
    @pytest.mark.parametrize("fault", [Fault.ERROR, Fault.HALF, Fault.NOT_JSON, Fault.OTHER_MODE, Fault.ENDLESS])
    async def test_on_a_later_page_fails_the_whole_read(
        self, stripe: FakeStripe, reader: Reader, fault: Fault, page: int
    ) -> None:
        """What came before the page that failed is not used, not even as part of an answer."""
        fill(stripe, 250)
        stripe.break_with(fault, after=page)
        error = await reader.failure()
        assert isinstance(error, Broken)
        assert reader.outcomes[:page] == ["200"] * page
        assert stripe.requests[page].query["starting_after"]

    async def test_on_a_later_page_that_passes_is_outlasted(self, stripe: FakeStripe, reader: Reader) -> None:
        """Only the page that failed is asked for again."""
        granted = fill(stripe, 250)
        stripe.break_with(Fault.ERROR, after=1, times=2)
        assert list((await reader.fetch()).ids) == list(granted)
        assert stripe.count() == 5

    async def test_is_logged_once_per_change(
        self, stripe: FakeStripe, reader: Reader, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Four failed requests are one line, and the recovery is another."""
        caplog.set_level(logging.INFO, "sidecar")
        fill(stripe, 1)
        stripe.break_with(Fault.ERROR)
        await reader.failure()
        stripe.break_with(None)
        await reader.fetch()
        failing, again = [record.getMessage() for record in caplog.records if record.name.startswith("sidecar")]
        assert failing == f"reading entitlements from Stripe fails (broken): An unknown error occurred; {WITHOUT}"
        assert again.startswith("reading entitlements works again, after ")

    async def test_of_nobody_listening_is_unreachable(self, session: aiohttp.ClientSession) -> None:
        """A port that refuses connections."""
        with socket.socket() as unserved:
            unserved.bind(("127.0.0.1", 0))
            base = f"http://127.0.0.1:{unserved.getsockname()[1]}"
            reader = Reader(base, session)
            error = await reader.failure()
        assert type(error) is Unreachable
        assert str(error).startswith(f"{base} cannot be reached: ")
        assert reader.outcomes == ["unreachable"] * 4


class TestARefusal:
    @pytest.mark.parametrize(
        ("status", "headers", "kind", "requests"),
        [
            (401, {}, KeyRejected, 1),
            (403, {}, PermissionMissing, 1),
            (400, {}, RequestRejected, 1),
            (404, {}, RequestRejected, 1),
            (418, {}, RequestRejected, 1),
            (409, {}, RequestRejected, 4),
            (424, {}, Broken, 4),
            (503, {}, Broken, 4),
            (500, {"Stripe-Should-Retry": "false"}, Broken, 1),
            (429, {"Stripe-Should-Retry": "false"}, Throttled, 1),
            (409, {"Stripe-Should-Retry": "false"}, RequestRejected, 1),
            (400, {"Stripe-Should-Retry": "true"}, RequestRejected, 4),
        ],
    )
    async def test_is_repeated_where_that_may_help(
        self,
        session: aiohttp.ClientSession,
        status: int,
        headers: dict[str, str],
        kind: type[UpstreamError],
        requests: int,
    ) -> None:
        """The status decides, unless Stripe-Should-Retry does."""
        error = {"error": {"type": "invalid_request_error", "message": "So it is."}}
        async with answering(lambda _: web.json_response(error, status=status, headers=headers)) as base:
            reader = Reader(base, session)
            found = await reader.failure()
        assert type(found) is kind
        assert (found.detail, found.status) == ("So it is.", status)
        assert reader.outcomes == [str(status)] * requests
        assert reader.counted == {("list", "other" if status == 418 else str(status)): requests}

    async def test_names_the_permission_that_is_missing(
        self, stripe: FakeStripe, upstream: str, session: aiohttp.ClientSession
    ) -> None:
        """Stripe's message reaches health: it says what to allow the key."""
        stripe.key = "rk_test_restricted"
        reader = Reader(upstream, session, key=ApiKey(stripe.key))
        error = await reader.failure()
        assert type(error) is PermissionMissing
        assert "'rak_entitlement_read'" in error.detail
        assert stripe.count() == 1

    async def test_by_redirect_is_not_followed(
        self, stripe: FakeStripe, upstream: str, session: aiohttp.ClientSession
    ) -> None:
        """The key would go wherever the redirect points."""
        fill(stripe, 1)

        def away(request: web.Request) -> web.Response:
            return web.Response(status=302, headers={"Location": upstream + request.path_qs})

        async with answering(away) as base:
            error = await Reader(base, session).failure()
        assert (type(error), error.status) == (Broken, 302)
        assert stripe.count() == 0

    async def test_of_endless_bytes_is_given_up(self, session: aiohttp.ClientSession) -> None:
        """A body longer than any answer of Stripe's is not read to its end, and not asked for again."""
        async with answering(lambda _: web.Response(body=bytes(BODY + 1))) as base:
            reader = Reader(base, session)
            error = await reader.failure()
        assert (type(error), error.status) == (Broken, 200)
        assert "more than" in str(error)
        assert reader.outcomes == ["broken"]

    @pytest.mark.parametrize(
        ("takes", "manners", "expected"),
        [
            (0.0, {}, [0.0, 0.25, 0.75, 1.75]),
            (4.0, {}, [0.0, 4.25, 8.75]),
            (0.0, {"jitter": 1.0, "attempts": 2}, [0.0, 0.25]),
        ],
        ids=["pauses double", "none begins after ten seconds", "chance adds to them"],
    )
    def test_is_asked_for_again_after_pauses(
        self, takes: float, manners: dict[str, float], expected: list[float]
    ) -> None:
        """As the manners say, in virtual time."""
        clock = FakeClock()
        began, asked = clock(), []

        class Failing:
            async def get(self, *_: object, **__: object) -> Answer:
                asked.append(clock() - began)
                await asyncio.sleep(takes)
                raise Unreachable("reset")

        async def story() -> None:
            limiter = Limiter(rate=100, burst=100, clock=clock)
            polite = replace(Manners("https://api.stripe.com", VERSION, seed=7, jitter=0), **manners)  # type: ignore[arg-type]
            client = StripeClient(cast("Transport", Failing()), ApiKey(KEY), polite, limiter=limiter, clock=clock)
            with pytest.raises(Unreachable):
                _ = await client.fetch(ADA, Flight(clock()))

        play(clock, story())
        if "jitter" in manners:
            assert expected[1] < asked.pop() < expected[1] + manners["jitter"]
            expected = expected[:1]
        assert asked == pytest.approx(expected, abs=1e-3)


class TestAVanishedCursor:
    """An entitlement that is revoked just when the next page is asked for behind it."""

    def revoke_cursors(self, stripe: FakeStripe, granted: dict[str, str], times: int) -> None:
        left = iter(range(times))

        def revoke(seen: Seen) -> None:
            cursor = seen.query.get("starting_after")
            if cursor is not None and next(left, None) is not None:
                stripe.revoke("cus_ada", granted[cursor])

        stripe.on_request = revoke

    @pytest.mark.parametrize("times", [1, 2, 3])
    async def test_restarts_the_read(self, stripe: FakeStripe, reader: Reader, times: int) -> None:
        """Up to three times; the snapshot is then the list as it is, taken when its own first page was asked for."""
        granted = fill(stripe, 150)
        self.revoke_cursors(stripe, granted, times)
        snapshot = await reader.fetch()
        assert [e.feature.lookup_key for e in snapshot.entitlements] == stripe.held("cus_ada")
        assert len(snapshot.ids) == 150 - times
        assert reader.outcomes == [*["200", "400"] * times, "200", "200"]
        assert snapshot.taken_at == reader.flights[-1].exchanges[2 * times].asked_at
        assert reader.client.health.state == "ok"
        assert reader.client.health.last_failure is None

    async def test_ends_the_read_at_last(self, stripe: FakeStripe, reader: Reader) -> None:
        """A list that changes during each of four reads is not read; every retry is spent on it, none in addition."""
        self.revoke_cursors(stripe, fill(stripe, 150), 99)
        error = await reader.failure()
        assert type(error) is Broken
        assert str(error).startswith("the list changed during each of 4 reads of it: No such active entitlement")
        assert reader.outcomes == ["200", "400"] * 4
        assert error.__cause__ is None

    async def test_may_be_allowed_no_restart(
        self, stripe: FakeStripe, upstream: str, session: aiohttp.ClientSession
    ) -> None:
        """The number of restarts is one of the client's manners."""
        self.revoke_cursors(stripe, fill(stripe, 150), 1)
        reader = Reader(upstream, session, restarts=0)
        await reader.failure()
        assert reader.outcomes == ["200", "400"]

    async def test_is_told_from_a_list_that_is_too_long(
        self, stripe: FakeStripe, upstream: str, session: aiohttp.ClientSession
    ) -> None:
        """`max_pages` bounds each read, and reaching it is final."""
        fill(stripe, 250)
        error = await Reader(upstream, session, max_pages=2).failure()
        assert str(error) == "the list has more than 2 pages"
        assert stripe.count() == 2


class TestTheBudget:
    async def test_is_taken_per_attempt(
        self, stripe: FakeStripe, upstream: str, session: aiohttp.ClientSession
    ) -> None:
        """Four attempts are four requests, whatever came of them."""
        fill(stripe, 1)
        reader = Reader(upstream, session, limiter=never_refilled(10))
        stripe.break_with(Fault.ERROR)
        await reader.failure()
        assert round(reader.limiter.left) == 6
        stripe.break_with(None)
        await reader.client.relay("/v1/entitlements/features", "", None)
        assert round(reader.limiter.left) == 5

    async def test_is_not_taken_twice_for_a_refresh_that_has_paid(
        self, stripe: FakeStripe, upstream: str, session: aiohttp.ClientSession
    ) -> None:
        """The first request of a prepaid flight costs nothing more; its next page costs a token like any other."""
        fill(stripe, 101)
        clock = FakeClock()
        reader = Reader(upstream, session, limiter=Limiter(rate=1, burst=2, clock=clock), clock=clock)
        assert reader.limiter.take_spare()
        snapshot = await reader.client.fetch(ADA, Flight(clock(), prepaid=True))
        assert len(snapshot.ids) == 101
        assert (stripe.count(), reader.limiter.left) == (2, 0)

    async def test_that_is_exhausted_sends_nothing(
        self, stripe: FakeStripe, upstream: str, session: aiohttp.ClientSession
    ) -> None:
        """Neither a read nor a relayed request leaves; Stripe's health is none the worse."""
        reader = Reader(upstream, session, limiter=never_refilled(1))
        assert reader.limiter.take_spare()
        assert type(await reader.failure()) is OverBudget
        with pytest.raises(OverBudget):
            await reader.client.relay("/v1/entitlements/features", "", None)
        assert (stripe.count(), reader.outcomes, reader.counted) == (0, [], {})
        assert reader.client.health.state == "untried"

    async def test_that_ends_between_attempts_ends_the_read(
        self, stripe: FakeStripe, upstream: str, session: aiohttp.ClientSession
    ) -> None:
        """The third attempt is not made, and the error says why."""
        fill(stripe, 1)
        stripe.break_with(Fault.ERROR)
        reader = Reader(upstream, session, limiter=never_refilled(2))
        assert type(await reader.failure()) is OverBudget
        assert stripe.count() == 2

    async def test_counts_what_aiohttp_repeats_by_itself(
        self, stripe: FakeStripe, upstream: str, session: aiohttp.ClientSession
    ) -> None:
        """A GET on a pooled connection that turns out to be closed is sent once more: two requests, one attempt."""
        granted = fill(stripe, 1)
        reader = Reader(upstream, session, limiter=never_refilled(10), attempts=1)
        await reader.fetch()
        stripe.break_with(Fault.RESET, times=1)
        assert list((await reader.fetch()).ids) == list(granted)
        assert stripe.count() == 3
        assert round(reader.limiter.left) == 7
        assert reader.counted == {("list", "200"): 2, ("list", "unreachable"): 1}

    async def test_bounds_what_aiohttp_repeats_by_itself(
        self, stripe: FakeStripe, upstream: str, session: aiohttp.ClientSession
    ) -> None:
        """With nothing left the repetition is not sent."""
        fill(stripe, 1)
        stripe.break_with(Fault.RESET)
        reader = Reader(upstream, session, limiter=never_refilled(1))
        assert type(await reader.failure()) is OverBudget
        assert stripe.count() == 1


async def test_each_asks_for_the_budget_as_urgently_as_it_is(stripe: FakeStripe, reader: Reader) -> None:
    """A list as its flight is, events as news, what is passed on as somebody who waits."""
    stripe.add_customer("cus_ada")

    def asked() -> list[int]:
        return [sum(reader.limiter.waited[urgency].counts) for urgency in Urgency]

    await reader.client.fetch(ADA, Flight(reader.clock(), urgency=Urgency.BACKGROUND))
    assert asked() == [1, 0, 0]
    await reader.client.events({}, None)
    assert asked() == [1, 1, 0]
    stripe.break_with(Fault.RESET, times=1)  # which aiohttp repeats on a pooled connection
    await reader.client.relay("/v1/entitlements/features", "", None)
    assert asked() == [1, 1, 2]


REASONS = ("global-rate", "global-concurrency", "endpoint-rate", "endpoint-concurrency", "resource-specific")


class TestARateLimiter:
    """A refusal for the rate slows the budget down, whatever was asked."""

    @staticmethod
    def refusing(status: int, code: str, headers: dict[str, str]) -> Handler:
        error = {"type": "invalid_request_error", "code": code, "message": "slow down"}
        return lambda _: web.json_response({"error": error}, status=status, headers=headers)

    @pytest.mark.parametrize(
        ("status", "code", "headers", "slows"),
        [
            *[(429, "rate_limit", {"Stripe-Rate-Limited-Reason": reason}, True) for reason in REASONS],
            (400, "rate_limit", {}, True),
            (429, "rate_limit", {}, False),
            (429, "lock_timeout", {}, False),
            (400, "parameter_invalid", {}, False),
            (500, "", {}, False),
        ],
    )
    @pytest.mark.parametrize("operation", ["list", "events", "relay"])
    async def test_slows_us_down(
        self,
        session: aiohttp.ClientSession,
        operation: str,
        status: int,
        code: str,
        headers: dict[str, str],
        slows: bool,  # noqa: FBT001 -- a parameter of the test
    ) -> None:
        """By half, at once; only if it was one."""
        async with answering(self.refusing(status, code, headers)) as base:
            reader = Reader(base, session, attempts=1)
            with suppress(UpstreamError):
                if operation == "list":
                    await reader.fetch()
                elif operation == "events":
                    await reader.client.events({}, None)
                else:
                    await reader.client.relay("/v1/x", "", None)
        bucket = reader.limiter.bucket
        assert bucket.throttled == slows
        assert bucket.rate < 60_000 if slows else bucket.rate == 100_000

    async def test_that_names_a_time_is_left_alone_for_as_long(self, session: aiohttp.ClientSession) -> None:
        """`Retry-After` speaks of the limiter, so of all our requests."""
        headers = {"Stripe-Rate-Limited-Reason": "endpoint-rate", "Retry-After": "7"}
        async with answering(self.refusing(429, "rate_limit", headers)) as base:
            clock = FakeClock()
            reader = Reader(base, session, clock=clock, attempts=1)
            await reader.failure()
            assert reader.limiter.bucket.until(1) == pytest.approx(clock.now + 7, abs=0.01)
            with pytest.raises(OverBudget):
                await reader.client.relay("/v1/x", "", None, within=6)

    async def test_of_many_requests_at_once_counts_once(self, stripe: FakeStripe, reader: Reader) -> None:
        """They were sent before the first of the refusals came."""
        for _ in range(20):
            stripe.grant("cus_ada", "sso")
        stripe.break_with(Fault.THROTTLED, times=20)
        gate = asyncio.Event()
        stripe.on_request = lambda _: gate.set()
        reader.client._manners = replace(reader.client._manners, attempts=1)
        found = await asyncio.gather(*(reader.failure(Customer(f"cus_{number}")) for number in range(20)))
        assert {error.code for error in found} == {"throttled"}
        bucket = reader.limiter.bucket
        assert bucket.throttled == 20
        assert bucket.rate > 100_000 * LEAST, "one or a few decreases, and not twenty"


class TestTheBreaker:
    """After five failures in a row nothing is asked; each operation has a breaker of its own."""

    @staticmethod
    async def use(reader: Reader, operation: str) -> UpstreamError | None:
        """Ask once; return what went wrong."""
        try:
            if operation == "list":
                await reader.fetch()
            elif operation == "events":
                await reader.client.events({}, None)
            else:
                await reader.client.relay("/v1/entitlements/features", "", None)
        except UpstreamError as error:
            return error
        return None

    @pytest.fixture
    def patient(self, upstream: str, session: aiohttp.ClientSession, stripe: FakeStripe) -> Reader:
        """A reader with a clock that stands still and a hundred tokens, which asks once."""
        stripe.add_customer("cus_ada")
        return Reader(upstream, session, clock=FakeClock(), limiter=never_refilled(100), attempts=1)

    async def open(self, reader: Reader, stripe: FakeStripe, operation: str = "list") -> None:
        stripe.break_with(Fault.ERROR)
        for _ in range(FAILURES):
            assert reader.client.breakers[operation].state is State.CLOSED
            await self.use(reader, operation)
        assert reader.client.breakers[operation].state is State.OPEN

    @pytest.mark.parametrize("operation", ["list", "events", "relay"])
    async def test_that_is_open_sends_nothing_and_takes_no_token(
        self, patient: Reader, stripe: FakeStripe, operation: str
    ) -> None:
        """Whoever asks is told at once, with the cause; the other operations go on, and health knows why."""
        await self.open(patient, stripe, operation)
        left = round(patient.limiter.left)
        for _ in range(10):
            error = await self.use(patient, operation)
            assert type(error) is CircuitOpen
            assert type(error.last) is Broken
            assert "broken (status 500)" in str(error)
        assert (stripe.count(), round(patient.limiter.left)) == (FAILURES, left)
        others = {"list", "events", "relay"} - {operation}
        assert {patient.client.breakers[other].state for other in others} == {State.CLOSED}
        assert patient.client.health.state == ("broken" if operation == "list" else "untried")
        if operation == "list":
            assert patient.flights[-1].trouble is not None
            assert patient.flights[-1].trouble[0] is CircuitOpen

    async def test_lets_no_prepaid_token_go_to_waste(self, patient: Reader, stripe: FakeStripe) -> None:
        """What a background refresh has paid before it found the breaker open comes back; later ones do not pay."""
        await self.open(patient, stripe)
        left = round(patient.limiter.left)
        assert not patient.client.take_spare()
        assert patient.limiter.take_spare()
        with pytest.raises(CircuitOpen):
            await patient.client.fetch(ADA, Flight(patient.clock(), prepaid=True))
        assert round(patient.limiter.left) == left
        cast("FakeClock", patient.clock).advance(2)
        assert patient.client.take_spare()

    async def test_that_opened_while_somebody_waited_gives_the_token_to_the_next(
        self, stripe: FakeStripe, upstream: str, session: aiohttp.ClientSession
    ) -> None:
        """Those in the queue are told one after another, without using up a token each."""
        limiter = Limiter(rate=20, burst=1, clock=steady_clock())
        reader = Reader(upstream, session, limiter=limiter)
        assert limiter.take_spare()
        waiting = [asyncio.ensure_future(reader.failure()) for _ in range(10)]  # noqa: TID251 -- gathered below
        await asyncio.sleep(0)
        breaker = reader.client.breakers["list"]
        for _ in range(FAILURES):
            with breaker.entered() as passage:
                passage.fail(Broken("no"))
        assert {type(error) for error in await asyncio.gather(*waiting)} == {CircuitOpen}
        assert (stripe.count(), limiter.waiting, breaker.opened) == (0, 0, 1)

    async def test_finds_out_with_one_request(self, patient: Reader, stripe: FakeStripe) -> None:
        """When its time has come; a crowd does not follow before that one is back."""
        await self.open(patient, stripe)
        cast("FakeClock", patient.clock).advance(2)
        crowd = await asyncio.gather(*(self.use(patient, "list") for _ in range(20)))
        assert [type(error) for error in crowd].count(CircuitOpen) == 19
        assert stripe.count() == FAILURES + 1
        stripe.break_with(None)
        cast("FakeClock", patient.clock).advance(3)
        assert await self.use(patient, "list") is None
        assert patient.client.breakers["list"].state is State.CLOSED

    async def test_finds_out_with_a_token_that_nobody_waits_for(self, patient: Reader, stripe: FakeStripe) -> None:
        """It is not urgent: whoever waits is told at once anyway."""
        await self.open(patient, stripe)
        taken = [sum(patient.limiter.waited[urgency].counts) for urgency in Urgency]
        assert taken == [0, 0, FAILURES]
        cast("FakeClock", patient.clock).advance(2)
        await self.use(patient, "list")
        assert [sum(patient.limiter.waited[urgency].counts) for urgency in Urgency] == [1, 0, FAILURES]

    async def test_whose_probe_is_cancelled_lets_another_one_try(self, patient: Reader, stripe: FakeStripe) -> None:
        """The place is given back, whatever happened to whoever held it."""
        await self.open(patient, stripe)
        stripe.break_with(Fault.HANG)
        cast("FakeClock", patient.clock).advance(2)
        probe = asyncio.ensure_future(patient.fetch())  # noqa: TID251 -- cancelled below
        while stripe.count() == FAILURES:
            await asyncio.sleep(0.001)
        assert not patient.client.breakers["list"].lets_through
        probe.cancel()
        with suppress(asyncio.CancelledError):
            await probe
        stripe.break_with(None)
        assert await self.use(patient, "list") is None

    @pytest.mark.parametrize(
        ("status", "body", "verdict"),
        [
            (500, b'{"error": {"type": "api_error"}}', "failure"),
            (424, b'{"error": {"type": "api_error"}}', "failure"),
            (503, b"<html>", "failure"),
            (404, b"<html>", "failure"),
            (200, b"<html>", "failure"),
            (200, b'{"object": "list", "has_more": false}', "neither"),
            (401, b'{"error": {"type": "invalid_request_error", "message": "no"}}', "neither"),
            (403, b'{"error": {"type": "invalid_request_error", "message": "no"}}', "neither"),
            (429, b'{"error": {"type": "invalid_request_error", "message": "no"}}', "neither"),
            (400, b'{"error": {"type": "invalid_request_error", "message": "no"}}', "success"),
            (409, b'{"error": {"type": "invalid_request_error", "message": "no"}}', "success"),
            (404, b'{"error": {"code": "resource_missing", "param": "customer", "message": "no"}}', "success"),
            (400, b'{"error": {"code": "resource_missing", "param": "starting_after"}}', "neither"),
            (
                200,
                b'{"object": "list", "has_more": false, "data": [], "url": "/v1/entitlements/active_entitlements"}',
                "success",
            ),
        ],
    )
    async def test_judges_what_came_back(
        self, session: aiohttp.ClientSession, status: int, body: bytes, verdict: str
    ) -> None:
        """A failure is what others are likely to meet as well; a success, what only a Stripe that works can say."""
        async with answering(lambda _: web.Response(status=status, body=body)) as base:
            reader = Reader(base, session, attempts=1, restarts=0)
            breaker = reader.client.breakers["list"]
            for _ in range(FAILURES - 1):
                with breaker.entered() as passage:
                    passage.fail(Broken("before"))
            await self.use(reader, "list")
        assert (breaker.state is State.OPEN) == (verdict == "failure")
        assert (breaker.cause is None) == (verdict == "success")

    async def test_does_not_open_for_a_budget_that_is_used_up(self, patient: Reader, stripe: FakeStripe) -> None:
        """That is our own doing."""
        patient.limiter.bucket._tokens = 0.0
        for _ in range(2 * FAILURES):
            assert type(await self.use(patient, "list")) is OverBudget
        assert patient.client.breakers["list"].state is State.CLOSED
        assert stripe.count() == 0


class TestRelaying:
    async def test_passes_an_answer_on_as_it_is(self, stripe: FakeStripe, reader: Reader) -> None:
        """Status, body and headers are Stripe's."""
        stripe.grant("cus_ada", "sso", account="acct_1")
        before = reader.clock()
        answer = await reader.client.relay(
            "/v1/entitlements/active_entitlements", "customer=cus_ada&expand[]=data.feature", "acct_1"
        )
        seen = stripe.requests[-1]
        assert answer.status == 200
        assert b'"name": "sso"' in answer.body
        assert answer.headers["Request-Id"] == seen.request_id
        assert before <= answer.asked_at <= reader.clock()
        assert (seen.account, seen.headers["Stripe-Version"]) == ("acct_1", VERSION)
        assert reader.counted == {("relay", "200"): 1}

    @pytest.mark.parametrize(
        ("path", "query", "sent"),
        [
            ("/v1/x", "", "/v1/x"),
            ("/v1/x%2Fy", "a=%20b&c=d+e", "/v1/x%2Fy?a=%20b&c=d+e"),
            ("/v1/x", "expand%5B%5D=feature&expand[]=y", "/v1/x?expand%5B%5D=feature&expand[]=y"),
        ],
    )
    async def test_leaves_path_and_query_alone(
        self, session: aiohttp.ClientSession, path: str, query: str, sent: str
    ) -> None:
        """What was percent-encoded stays so, byte for byte."""
        got: list[str] = []

        def note(request: web.Request) -> web.Response:
            got.append(request.raw_path)
            return web.json_response({})

        async with answering(note) as base:
            await Reader(base, session).client.relay(path, query, None)
        assert got == [sent]

    @pytest.mark.parametrize("status", [204, 302, 400, 403, 404, 429, 500, 503])
    async def test_passes_refusals_on(self, session: aiohttp.ClientSession, status: int) -> None:
        """Once: whether to ask again is for the caller to decide."""
        async with answering(
            lambda _: web.Response(status=status, body=None if status == 204 else b"So it is.")
        ) as base:
            reader = Reader(base, session)
            answer = await reader.client.relay("/v1/x", "", None)
        assert (answer.status, answer.body) == (status, b"" if status == 204 else b"So it is.")
        assert sum(reader.counted.values()) == 1

    async def test_keeps_a_rejected_key_to_itself(
        self, stripe: FakeStripe, upstream: str, session: aiohttp.ClientSession
    ) -> None:
        """401 is about our key and not about the caller's."""
        reader = Reader(upstream, session, key=ApiKey("sk_test_another"))
        with pytest.raises(KeyRejected):
            await reader.client.relay("/v1/entitlements/features", "", None)
        assert (stripe.count(), reader.client.health.state) == (1, "key_rejected")

    async def test_of_an_error_does_not_hide_that_reads_fail(self, stripe: FakeStripe, reader: Reader) -> None:
        """Stripe's health is that of our own reads until something succeeds."""
        stripe.add_customer("cus_ada")
        stripe.break_with(Fault.NOT_JSON)
        with pytest.raises(Broken):
            await reader.fetch()
        stripe.break_with(Fault.ERROR)
        assert (await reader.client.relay("/v1/entitlements/features", "", None)).status == 500
        assert reader.client.health.state == "broken"
        stripe.break_with(None)
        await reader.client.relay("/v1/entitlements/features", "", None)
        assert reader.client.health.state == "ok"

    async def test_asks_once(self, stripe: FakeStripe, reader: Reader) -> None:
        """A failure without an answer is the caller's to repeat."""
        stripe.break_with(Fault.HALF)
        with pytest.raises(Broken):
            await reader.client.relay("/v1/entitlements/features", "", None)
        assert (stripe.count(), reader.counted) == (1, {("relay", "broken"): 1})


class TestTheListOfEvents:
    PARAMS: ClassVar = {"type": NEWS, "created[gte]": "1790000000", "limit": "100"}

    async def test_is_asked_for_as_it_is_told(self, stripe: FakeStripe, reader: Reader) -> None:
        """The parameters arrive as they are, with the pinned version, and an account where there is one."""
        stripe.grant("cus_ada", "sso")
        stripe.grant("cus_bob", "sso", account="acct_1")
        ours = (await reader.client.events(self.PARAMS, None)).page
        theirs = (await reader.client.events(self.PARAMS | {"limit": "1"}, "acct_1")).page
        assert [event["data"]["object"]["customer"] for event in ours["data"]] == ["cus_ada"]
        assert [event["data"]["object"]["customer"] for event in theirs["data"]] == ["cus_bob"]
        first, second = stripe.requests
        assert (first.path, dict(first.query), first.account) == (EVENTS_PATH, self.PARAMS, None)
        assert (dict(second.query)["limit"], second.account) == ("1", "acct_1")
        assert "Stripe-Account" not in first.headers
        assert {seen.headers["Stripe-Version"] for seen in stripe.requests} == {VERSION}
        assert reader.counted == {("events", "200"): 2}

    async def test_that_comes_is_no_sign_that_lists_can_be_read(self, stripe: FakeStripe, reader: Reader) -> None:
        """Health is about entitlements: another permission, another limit."""
        assert reader.client.health.state == "untried"
        await reader.client.events(self.PARAMS, None)
        assert reader.client.health.state == "untried"
        stripe.break_with(Fault.NOT_JSON, operation="list")
        stripe.add_customer("cus_ada")
        await reader.failure()
        await reader.client.events(self.PARAMS, None)
        assert reader.client.health.state == "broken"

    @pytest.mark.parametrize(
        ("fault", "kind", "requests", "outcome"),
        [
            (Fault.ERROR, Broken, 4, "500"),
            (Fault.THROTTLED, Throttled, 4, "429"),
            (Fault.LOCK_TIMEOUT, Throttled, 4, "429"),
            (Fault.HTML, Broken, 4, "502"),
            (Fault.NOT_JSON, Broken, 4, "200"),
            (Fault.HALF, Broken, 4, "broken"),
            (Fault.RESET, Unreachable, 8, "unreachable"),
        ],
    )
    async def test_that_does_not_come_is_asked_for_again(
        self, stripe: FakeStripe, reader: Reader, fault: Fault, kind: type[UpstreamError], requests: int, outcome: str
    ) -> None:
        """As a customer's list is; but entitlements are none the worse for it."""
        stripe.break_with(fault)
        with pytest.raises(UpstreamError) as caught:
            await reader.client.events(self.PARAMS, None)
        assert type(caught.value) is kind
        assert stripe.count() == requests
        assert reader.counted == {("events", outcome): requests}
        assert (reader.client.health.state, reader.client.health.last_failure) == ("untried", None)

    async def test_that_comes_at_last_is_the_list(self, stripe: FakeStripe, reader: Reader) -> None:
        """Three failures are survived by the fourth attempt."""
        stripe.grant("cus_ada", "sso")
        stripe.break_with(Fault.ERROR, times=3)
        assert len((await reader.client.events(self.PARAMS, None)).page["data"]) == 1

    async def test_needs_a_permission_of_its_own(
        self, stripe: FakeStripe, upstream: str, session: aiohttp.ClientSession
    ) -> None:
        """Stripe's message names it, and it is asked for once."""
        stripe.key, stripe.permissions = "rk_test_restricted", frozenset({"rak_entitlement_read"})
        reader = Reader(upstream, session, key=ApiKey(stripe.key))
        with pytest.raises(PermissionMissing, match="'rak_event_read'") as caught:
            await reader.client.events(self.PARAMS, None)
        assert (caught.value.status, caught.value.request_id) == (403, stripe.requests[-1].request_id)
        assert (stripe.count(), reader.client.health.state) == (1, "untried")

    @pytest.mark.parametrize("param", ["customer", "id"])
    async def test_knows_no_unknown_customers(self, session: aiohttp.ClientSession, param: str) -> None:
        """None was named; whatever Stripe means by it, there is no list, and nothing was learnt of entitlements."""
        error = {"type": "invalid_request_error", "code": "resource_missing", "param": param, "message": "No such."}
        async with answering(lambda _: web.json_response({"error": error}, status=404)) as base:
            reader = Reader(base, session)
            with pytest.raises(Broken, match="No such") as caught:
                await reader.client.events(self.PARAMS, None)
        assert caught.value.status == 404
        assert reader.counted == {("events", "404"): 1}
        assert reader.client.health.state == "untried"

    async def test_costs_budget(self, stripe: FakeStripe, upstream: str, session: aiohttp.ClientSession) -> None:
        """A token for each page, and nothing is sent without one; it is waited for, however many others want it."""
        limiter = never_refilled(2)
        reader = Reader(upstream, session, limiter=limiter)
        for _ in range(2):
            await reader.client.events(self.PARAMS, None)
        async with asyncio.TaskGroup() as group:
            third = group.create_task(reader.client.events(self.PARAMS, None))
            while not limiter.waiting:
                await asyncio.sleep(0)
            assert stripe.count() == 2
            limiter.give_back()
            assert (await third).page["data"] == []
        assert stripe.count() == 3
        assert limiter.refused == 0
        assert reader.client.health.state == "untried"


class TestTheKey:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        found = tmp_path / "key"
        found.write_text(KEY)
        return found

    @pytest.fixture
    def key(self, file: Path) -> ApiKey:
        return ApiKey.from_file(file, clock=FakeClock())

    @pytest.fixture
    def shown(self, caplog: pytest.LogCaptureFixture) -> Iterator[Callable[..., None]]:
        caplog.set_level(logging.DEBUG)

        def check(*things: object) -> None:
            """Insist that the key is in nothing that could be shown."""
            for thing in things:
                texts = [str(thing), repr(thing), repr(getattr(thing, "__dict__", ""))]
                if isinstance(thing, BaseException):
                    texts += [*map(str, thing.args), *traceback.format_exception(thing)]
                assert KEY not in "\n".join(texts)
            assert KEY not in caplog.text

        yield check
        assert KEY not in caplog.text

    async def test_that_was_rotated_is_picked_up(
        self, stripe: FakeStripe, upstream: str, session: aiohttp.ClientSession, file: Path, key: ApiKey
    ) -> None:
        """A 401 makes the file be read again; the read goes on with the new key."""
        granted = fill(stripe, 1)
        reader = Reader(upstream, session, key=key)
        stripe.key = NEW_KEY
        rotate(file, f"{NEW_KEY}\n")
        assert list((await reader.fetch()).ids) == list(granted)
        assert reader.outcomes == ["401", "200"]
        assert reader.client.health.state == "ok"

    async def test_that_was_rotated_serves_all_who_were_under_way(
        self, stripe: FakeStripe, upstream: str, session: aiohttp.ClientSession, file: Path, key: ApiKey
    ) -> None:
        """Whoever meets the 401 second finds that the key has changed already."""
        fill(stripe, 1)
        reader = Reader(upstream, session, key=key)
        stripe.key = NEW_KEY
        rotate(file, NEW_KEY)
        found = await asyncio.gather(*(reader.fetch() for _ in range(5)))
        assert [len(snapshot.ids) for snapshot in found] == [1] * 5

    async def test_that_was_rotated_is_picked_up_by_a_read_of_events_as_well(
        self, stripe: FakeStripe, upstream: str, session: aiohttp.ClientSession, file: Path, key: ApiKey
    ) -> None:
        """Whatever was asked when the 401 came."""
        reader = Reader(upstream, session, key=key)
        stripe.key = NEW_KEY
        rotate(file, NEW_KEY)
        assert (await reader.client.events({}, None)).page["data"] == []
        assert reader.counted == {("events", "401"): 1, ("events", "200"): 1}
        assert reader.client.health.state == "untried"

    async def test_that_is_not_accepted_is_not_tried_again(
        self,
        stripe: FakeStripe,
        upstream: str,
        session: aiohttp.ClientSession,
        key: ApiKey,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Without a new one in the file there is one request per read, and one line in the log."""
        caplog.set_level(logging.DEBUG, "sidecar")
        reader = Reader(upstream, session, key=key)
        stripe.key = NEW_KEY
        for _ in range(3):
            assert type(await reader.failure()) is KeyRejected
            assert reader.outcomes == ["401"]
        assert caplog.messages == [
            f"reading entitlements from Stripe fails (key_rejected): Invalid API Key provided: sk_test_***; {WITHOUT}"
        ]

    async def test_of_the_other_mode_is_not_tried(
        self, stripe: FakeStripe, upstream: str, session: aiohttp.ClientSession, file: Path, key: ApiKey
    ) -> None:
        """What is in memory is of the mode that the process started with."""
        reader = Reader(upstream, session, key=key)
        stripe.key = "sk_live_another"
        rotate(file, stripe.key)
        assert type(await reader.failure()) is KeyRejected
        assert stripe.count() == 1

    @pytest.mark.parametrize("status", [400, 401, 402, 403, 409, 429, 500])
    async def test_is_never_shown_even_if_stripe_repeats_it(
        self, session: aiohttp.ClientSession, status: int, shown: Callable[..., None]
    ) -> None:
        """An error's text, repr and traceback, health and the log have it masked."""

        def echo(request: web.Request) -> web.Response:
            error = {"type": "api_error", "message": f"not {request.headers['Authorization']}"}
            return web.json_response({"error": error}, status=status)

        async with answering(echo) as base:
            reader = Reader(base, session)
            error = await reader.failure()
            assert str(error) == error.detail == "not Bearer sk_test_***"
            shown(error, reader.client.health.last_failure, reader.client, reader.flights[-1])

    async def test_is_never_shown_even_if_an_unknown_customers_message_repeats_it(
        self, session: aiohttp.ClientSession, shown: Callable[..., None]
    ) -> None:
        """The message of a customer of the other mode goes into the log."""

        def echo(request: web.Request) -> web.Response:
            message = f"a similar object exists in live mode, but {request.headers['Authorization']} was used"
            error = {"type": "invalid_request_error", "code": "resource_missing", "param": "customer"}
            return web.json_response({"error": error | {"message": message}}, status=404)

        async with answering(echo) as base:
            snapshot = await Reader(base, session).fetch()
            shown(snapshot, snapshot.unknown)

    async def test_is_never_shown_even_if_it_comes_back_as_no_http(
        self, session: aiohttp.ClientSession, shown: Callable[..., None]
    ) -> None:
        """A server that sends a request back as it came makes aiohttp quote it."""

        async def mirror(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            authorization = next(line for line in head.split(b"\r\n") if line.startswith(b"Authorization"))
            writer.write(authorization + b"\r\n\r\n")
            writer.close()
            await writer.wait_closed()

        server = await asyncio.start_server(mirror, "127.0.0.1", 0)
        async with server:
            base = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            reader = Reader(base, session)
            error = await reader.failure()
        assert type(error) is Broken
        assert "Bearer sk_test_***" in str(error)
        shown(error, reader.client.health.last_failure)

    async def test_of_before_the_rotation_is_not_shown_either(
        self, session: aiohttp.ClientSession, file: Path, key: ApiKey, shown: Callable[..., None]
    ) -> None:
        """The answer that repeats a key may arrive when another one is in use already."""

        def echo(request: web.Request) -> web.Response:
            rotate(file, NEW_KEY)
            error = {"type": "invalid_request_error", "message": f"not {request.headers['Authorization']}"}
            return web.json_response({"error": error}, status=401)

        async with answering(echo) as base:
            reader = Reader(base, session, key=key)
            error = await reader.failure()
            assert reader.outcomes == ["401", "401"]
            assert NEW_KEY not in str(error)
            shown(error, reader.client.health.last_failure)
