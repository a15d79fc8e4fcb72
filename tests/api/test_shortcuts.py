"""Requests that are answered as bytes: the same as aiohttp would answer, but sooner."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from math import ceil
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.api import answers, shortcuts
from sidecar.api.batches import CHECKS, Batches
from sidecar.api.checks import ALL, ONE, Checks, canonical
from sidecar.api.guards import Gate
from sidecar.api.shortcuts import ENOUGH, Lasting, Posted, Shortcut, Shortcuts
from sidecar.kit.request_id import request_id
from sidecar.kit.tally import Count, Tally
from sidecar.metrics import Requests
from sidecar.model import Customer, Reason, Source
from sidecar.parts import shortcuts_of
from sidecar.rotation import Rotation
from sidecar.wire import Heads
from tests.core.fetching import ADA, BOB, House, held, unknown
from tests.fakes import FakeClock

START = 1_790_000_000.0


def asking(path: str, *fields: str) -> bytes:
    """Return a request, with ``Host`` and these fields."""
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: localhost", *fields, "", ""]).encode()


def posting(body: bytes, *fields: str, path: str = "/v1/checks") -> bytes:
    """Return a request with a body."""
    return asking(path, f"Content-Length: {len(body)}", *fields).replace(b"GET", b"POST", 1) + body


CHECK = asking("/v1/customers/cus_ada/entitlements/pro")
LIST = asking("/v1/customers/cus_ada/entitlements")


@dataclass
class Said:
    """An answer, read."""

    fields: dict[str, str]
    body: dict[str, Any]

    @classmethod
    def of(cls, answer: bytes | None) -> "Said":
        assert answer is not None
        head, _, body = answer.partition(b"\r\n\r\n")
        first, *fields = head.decode().split("\r\n")
        assert first == "HTTP/1.1 200 OK"
        said = dict(field.split(": ", 1) for field in fields)
        assert len(said) == len(fields)
        assert int(said["Content-Length"]) == len(body)
        return cls(said, orjson.loads(body))


BATCH = posting(b'{"checks":[{"customer":"cus_ada","lookup_key":"pro"},{"customer":"cus_ada","lookup_key":"max"}]}')


class Fast:
    """A heart, its surfaces, and the shortcuts to it."""

    def __init__(self, clock: FakeClock, gate: Gate | None = None) -> None:
        self.house = House(clock)
        self.clock = clock
        self.requests = Requests()
        count, checks, batches = self.requests.count, Checks(self.house.heart), Batches(self.house.checker)
        found: list[Shortcut | Posted] = [*checks.shortcuts(count), *batches.shortcuts(count)]
        self.shortcuts = shortcuts_of(found, gate or Gate(["localhost"]), self.house.heart, Rotation([]), clock)

    def ask(self, data: bytes = CHECK) -> Said:
        """Return what is answered."""
        return Said.of(self.shortcuts.answer(data))

    def keeps(self) -> bool:
        """Whether there is anything that would be repeated."""
        return bool(self.shortcuts._ready)

    @contextmanager
    def looking(self) -> Iterator[Callable[[], int]]:
        """Give what tells how many requests memory was asked about, the others being repetitions."""
        cache, times = self.house.cache, 0
        get = cache.get

        def counting(customer: Customer) -> object:
            nonlocal times
            times += 1
            return get(customer)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cache, "get", counting)
            yield lambda: times


@pytest.fixture
def fast(clock: FakeClock) -> Fast:
    return Fast(clock)


# --- what is answered ----------------------------------------------------------------------------------------------


async def test_a_check_has_the_fields_and_the_members_of_the_contract(fast: Fast) -> None:
    """In the contract's order, and with the age rounded up."""
    fast.house.remember(12.3451, "pro")
    said = fast.ask()
    assert list(said.body) == ["customer", "lookup_key", "entitled", "reason", "source", "age", "stale", "as_of"]
    assert said.body == {
        "customer": "cus_ada",
        "lookup_key": "pro",
        "entitled": True,
        "reason": "entitled",
        "source": "memory",
        "age": 12.346,
        "stale": False,
        "as_of": answers.moment(START - 12.3451),
    }
    assert {name: said.fields[name] for name in ("Age", "Cache-Status", "Cache-Control", "Content-Type")} == {
        "Age": "13",
        "Cache-Status": "entitlement-sidecar; hit; ttl=287",
        "Cache-Control": "no-store",
        "Content-Type": "application/json",
    }
    assert fast.ask(asking("/v1/customers/cus_ada/entitlements/other")).body["reason"] == "not_entitled"


async def test_a_list_has_its_validator(fast: Fast) -> None:
    """The same that aiohttp's answer has."""
    snapshot = fast.house.remember(1, "pro", "max")
    said = fast.ask(LIST)
    assert said.fields["ETag"] == f'W/"{answers.etag(snapshot)}"'
    assert [item["lookup_key"] for item in said.body["entitlements"]] == ["pro", "max"]


@pytest.mark.parametrize(
    "data",
    [
        CHECK.replace(b"GET", b"HEAD"),
        CHECK.replace(b"HTTP/1.1", b"HTTP/1.0"),
        CHECK.replace(b"/pro ", b"/pro?wait=1s "),
        CHECK.replace(b"/pro ", b"/pr%6F "),
        CHECK.replace(b"/pro ", b"/ "),
        CHECK.replace(b"/pro ", b"/" + b"p" * 201 + b" "),
        CHECK.replace(b"cus_ada", b"cus-ada"),
        CHECK.replace(b"cus_ada", b"cus_bob"),
        CHECK.replace(b"cus_ada", b"c" * 256),
        CHECK.replace(b" /v1", b" //v1"),
        CHECK.replace(b" /v1", b" http://localhost/v1"),
        CHECK.replace(b"Host: localhost\r\n", b""),
        CHECK.replace(b"localhost", b"evil.example"),
        CHECK[:-2],
        CHECK[:-1] + b"\r",
        CHECK.replace(b"\r\n", b"\n"),
        b"\r\n" + CHECK,
        CHECK + b"\r\n",
        CHECK + CHECK,
        b"",
        asking("/v1/customers/cus_ada/entitlements/pro", "Content-Length: 0"),
        asking("/v1/customers/cus_ada/entitlements/pro", "Stripe-Context: acct_1"),
        asking("/v1/customers/cus_ada/entitlements/pro", "Stripe-Account: cus_1"),
        asking("/v1/customers/cus_ada/entitlements/pro", "Stripe-Account: acct_other"),
        asking("/v1/customers/cus_ada/entitlements/pro", "If-None-Match: *"),
        asking("/v1/customers/cus_ada/entitlements/pro", "Cache-Control: max-age=5"),
        asking("/v1/customers/cus_ada/entitlements/pro", "Cache-Control: max-age=x"),
        asking("/v1/customers/cus_ada/entitlements/pro", "Cache-Control: no-cache"),
        asking("/v1/customers/cus_ada/entitlements/pro", "Connection: close"),
        asking("/v1/customers/cus_ada/entitlements/pro", "Proxy-Connection: close"),
        asking("/v1/customers/cus_unknown/entitlements"),
        asking("/v1/changes"),
    ],
    ids=str,
)
async def test_what_is_not_surely_simple_allowed_and_in_memory_has_no_shortcut(fast: Fast, data: bytes) -> None:
    """Nothing is counted then, so that it is counted once by who answers it."""
    fast.house.remember(10, "pro")
    fast.house.cache.put(unknown(Customer("cus_unknown"), START - 1))
    assert fast.shortcuts.answer(data) is None
    assert fast.requests.counts == {}
    assert sum(fast.house.checker.decisions.values()) == 0
    assert sum(fast.house.checker.ages.counts) == 0
    assert not fast.keeps()


async def test_wishes_and_accounts_are_heeded(fast: Fast) -> None:
    """What memory may answer for them has a shortcut; each is asked about anew."""
    fast.house.remember(400, "pro")
    fast.house.cache.put(held(BOB, START - 1, "b"))
    assert fast.ask().body["stale"] is True
    assert fast.ask(asking("/v1/customers/cus_ada/entitlements/pro", "Cache-Control: max-age=500")).body["age"] == 400
    bob = asking("/v1/customers/cus_bob/entitlements/b", "Stripe-Account: acct_1")
    assert fast.ask(bob).body | {"as_of": 0} == {
        "customer": "cus_bob",
        "account": "acct_1",
        "lookup_key": "b",
        "entitled": True,
        "reason": "entitled",
        "source": "memory",
        "age": 1.0,
        "stale": False,
        "as_of": 0,
    }
    assert not fast.keeps()
    await fast.house.close()


async def test_an_unknown_customer_is_known_to_be_so(fast: Fast) -> None:
    """For a check; its list is a problem, and that is aiohttp's to write."""
    fast.house.cache.put(unknown(ADA, START - 1.5))
    said = fast.ask()
    assert (said.body["reason"], said.body["entitled"], said.body["age"]) == ("unknown_customer", False, 1.5)
    assert said.fields["Cache-Status"].endswith("ttl=58")
    assert fast.shortcuts.answer(LIST) is None
    assert sum(fast.house.checker.ages.counts) == 1


async def test_what_has_no_shortcut_begins_nothing(fast: Fast) -> None:
    """Not even the flight that the long way will begin: the request may come to nothing before that."""
    fast.house.cache.put(unknown(ADA, START - 100))
    assert fast.shortcuts.answer(asking("/v1/customers/cus_ada/entitlements", "Cache-Control: max-stale")) is None
    assert fast.house.refresher.in_the_air() == 0


# --- the same again ------------------------------------------------------------------------------------------------


async def test_the_same_request_within_a_second_is_looked_up(fast: Fast) -> None:
    """But for three digits of its age, the answer is the same; memory is not asked, and every one is counted."""
    fast.house.remember(10.1, "pro")
    with fast.looking() as looks:
        ages = []
        for _ in range(9):
            ages.append(fast.ask().body["age"])
            fast.clock.advance(0.1)
        assert looks() == 1
        assert ages == [pytest.approx(10.1 + step / 10, abs=0.0011) for step in range(9)]
    assert fast.requests.counts == {(canonical(ONE), 200): 9}
    assert fast.house.checker.decisions[Reason.ENTITLED, Source.MEMORY] == 9
    assert sum(fast.house.checker.ages.counts) == 9
    assert fast.house.checker.ages.sum == pytest.approx(9 * 10.1 + 3.6)


async def test_a_list_again_is_counted_as_a_list(fast: Fast) -> None:
    """As a request with an age, not as a check."""
    fast.house.remember(10.1, "pro")
    for _ in range(3):
        fast.ask(LIST)
    assert fast.requests.counts == {(canonical(ALL), 200): 3}
    assert sum(fast.house.checker.decisions.values()) == 0
    assert sum(fast.house.checker.ages.counts) == 3


@pytest.mark.parametrize("age", [0.0, 1.0, 12.0])
async def test_an_age_of_whole_seconds_is_not_repeated(fast: Fast, age: float) -> None:
    """A moment later, its head would say a second too little."""
    fast.house.remember(age, "pro")
    assert fast.ask().fields["Age"] == str(ceil(age))
    assert not fast.keeps()
    fast.clock.advance(0.0005)
    assert (fast.ask().fields["Age"], fast.ask().body["age"]) == (str(ceil(age + 0.0005)), age + 0.001)


def change_nothing(_: Fast) -> None:
    pass


CHANGES: dict[str, Callable[[Fast], object]] = {
    "another list": lambda fast: fast.house.remember(0.5, "other"),
    "news": lambda fast: fast.house.cache.mark(ADA, fast.clock.now),
    "another customer's list": lambda fast: fast.house.cache.put(held(BOB, fast.clock.now)),
    "a span": lambda fast: fast.house.watermarks.begin(None, 0.0),
    "a watermark": lambda fast: fast.house.vouch(lag=0.25),
    "another token": lambda fast: fast.shortcuts.distrust(),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_nothing_is_repeated_once_something_has_changed(fast: Fast, change: str) -> None:
    """Memory is asked again, and what it says then is answered."""
    fast.house.remember(10.1, "pro")
    before = fast.ask().body
    assert fast.keeps()
    CHANGES[change](fast)
    assert not fast.keeps()
    if change == "news":
        assert fast.shortcuts.answer(CHECK) is None
        return
    after = fast.ask().body
    assert after["entitled"] is (change != "another list")
    assert after["as_of"] >= before["as_of"]
    assert after["age"] == {"another list": 0.5, "a watermark": 0.25, "a span": 10.1}.get(change, 10.1)


async def test_eviction_is_a_change(clock: FakeClock) -> None:
    """Who is no longer remembered is not answered for."""
    fast = Fast(clock)
    fast.house.remember(10.1, "pro")
    fast.ask()
    fast.house.cache.max_bytes = fast.house.cache.bytes + 100
    fast.house.cache.put(held(BOB, START, "pro"))
    assert fast.house.cache.evictions
    assert fast.shortcuts.answer(CHECK) is None


async def test_a_new_token_holds_at_once(clock: FakeClock) -> None:
    """For requests that were answered before as for others; the old one is let in no more."""
    token = "old"
    fast = Fast(clock, Gate(["localhost"], lambda: token))
    fast.house.remember(10.1, "pro")
    old, new = (
        asking("/v1/customers/cus_ada/entitlements/pro", f"Authorization: Bearer {name}") for name in ("old", "new")
    )
    assert fast.ask(old).body["entitled"] is True
    assert fast.shortcuts.answer(new) is None
    token = "new"
    fast.shortcuts.distrust()
    assert fast.shortcuts.answer(old) is None
    assert fast.ask(new).body["entitled"] is True


async def test_what_is_kept_has_a_bound(fast: Fast, monkeypatch: pytest.MonkeyPatch) -> None:
    """In bytes, since a list may be long; and so have the fields that were read."""
    keys = [f"feature-{place}" for place in range(1000)]
    fast.house.remember(10.1, *keys)
    for place in range(100):
        fast.ask(asking("/v1/customers/cus_ada/entitlements", f"User-Agent: {place}"))
        kept = sum(len(data) + len(ready[2]) + len(ready[4]) for data, ready in fast.shortcuts._ready.items())
        assert kept < shortcuts.ROOM + 200_000
    assert fast.keeps()
    monkeypatch.setattr(shortcuts, "MOST_SAID", 10)
    for place in range(25):
        fast.ask(asking("/v1/customers/cus_ada/entitlements/pro", f"User-Agent: x{place}"))
        assert len(fast.shortcuts._said) <= 100 + 10
    assert len(fast.shortcuts._said) <= 10


# --- what has a body -----------------------------------------------------------------------------------------------


async def test_a_batch_that_came_as_a_whole_is_answered(fast: Fast) -> None:
    """As often as it is asked: there is no one age by which it might be repeated."""
    fast.house.remember(12.3451, "pro")
    said = fast.ask(BATCH)
    assert [(told["entitled"], told["age"]) for told in said.body["results"]] == [(True, 12.346), (False, 12.346)]
    assert list(said.fields) == ["Cache-Control", "Content-Type", "Date", "Server", "Content-Length"]
    assert not fast.keeps()
    fast.clock.advance(1.5)
    assert fast.ask(BATCH).body["results"][0]["age"] == 13.846
    assert fast.ask(posting(BATCH.partition(b"\r\n\r\n")[2], "X-Request-Id: one")).fields["X-Request-Id"] == "one"
    assert fast.requests.counts == {(CHECKS, 200): 3}
    assert fast.house.checker.decisions[Reason.ENTITLED, Source.MEMORY] == 3
    ages = fast.house.checker.ages
    assert sum(ages.counts) == 6
    assert ages.sum == pytest.approx(4 * 13.8451 + 2 * 12.3451)


@pytest.mark.parametrize(
    "data",
    [
        BATCH[:-1],
        BATCH + b" ",
        BATCH + BATCH,
        BATCH + CHECK,
        BATCH.replace(b"\r\nContent-Length: 96", b""),
        BATCH.replace(b"POST", b"GET"),
        BATCH.replace(b" /v1/checks", b" /v1/checks?default=allow"),
        BATCH.replace(b"HTTP/1.1", b"HTTP/1.0"),
        BATCH.replace(b"cus_ada", b"cus_bob", 1),
        BATCH.replace(b"localhost", b"elsewhere"),
        posting(b""),
        posting(b"{"),
        posting(b'{"checks":{}}'),
        posting(b'{"checks":[{}]}'),
        posting(b'{"checks":[]}', "Content-Encoding: gzip"),
        posting(b'{"checks":[]}', "Cache-Control: max-age=5"),
        posting(b'{"checks":[]}', "Stripe-Account: acct_1"),
        posting(b'{"checks":[]}', path="/v1/check"),
    ],
    ids=range(18),
)
async def test_a_batch_that_is_not_simple_is_left_alone(fast: Fast, data: bytes) -> None:
    """It is aiohttp's to read, to refuse, or to wait for; nothing is counted."""
    fast.house.remember(12.3451, "pro")
    assert b"\r\nContent-Length: 96" in BATCH
    assert fast.shortcuts.answer(data) is None
    assert not any(fast.house.checker.decisions.values())
    assert not fast.requests.counts


STEPS = st.sampled_from(
    [0.0, 0.0001, 0.0005, 0.001, 0.1, 0.4, 0.9, 0.997, 0.998, 0.999, 1.0, 3.7, 20.0, 61.0]
) | st.floats(0, 2)
REQUESTS = [
    asking(f"/v1/customers/{who}/entitlements/{key}") for who in ("cus_ada", "cus_bob") for key in ("pro", "max")
]
REQUESTS += [asking(f"/v1/customers/{who}/entitlements") for who in ("cus_ada", "cus_bob")]


@given(
    ages=st.tuples(
        *[st.sampled_from([0.0, 0.05, 0.1, 0.9995, 4.9999, 59.9, 89.5, 119.25, 223.0, 299.5]) | st.floats(0, 400)] * 2
    ),
    steps=st.lists(
        st.tuples(STEPS, st.sampled_from([*range(len(REQUESTS)), 0, 0, 0, "put", "mark", "vouch"])), max_size=25
    ),
)
async def test_at_any_time_they_say_and_count_what_the_long_way_does(
    ages: tuple[float, ...], steps: list[tuple[float, int | str]]
) -> None:
    """Ages are never younger than they are, and ``as_of`` never goes back while nothing but time passes."""
    clock = FakeClock(START)
    fast, slow = Fast(clock), House(clock)
    for house in (fast.house, slow):
        for age, name in zip(ages, ("cus_ada", "cus_bob"), strict=True):
            house.remember(age, "pro", customer=Customer(name))
    try:
        for step, what in steps:
            clock.advance(step)
            if isinstance(what, int):
                assert_same(fast, slow, REQUESTS[what])
                continue
            for house in (fast.house, slow):
                change(house, what)
        assert fast.house.checker.ages.counts == slow.checker.ages.counts
        assert fast.house.checker.ages.sum == pytest.approx(slow.checker.ages.sum)
        assert fast.house.checker.decisions == slow.checker.decisions
        assert fast.house.upstream.asked == slow.upstream.asked
    finally:
        await fast.house.close()
        await slow.close()


def change(house: House, what: str) -> None:
    """Let memory be another one."""
    match what:
        case "put":
            house.remember(0.25, "max")
        case "mark":
            house.cache.mark(ADA, house.clock.now)
        case _:
            house.vouch(lag=0.5)


def assert_same(fast: Fast, slow: House, data: bytes) -> None:
    """The shortcut says what the heart says, if it says anything."""
    match = re.match(rb"GET /v1/customers/(\w+)/entitlements(?:/(\w+))?", data)
    assert match is not None
    customer, lookup_key = match.groups()
    answer = fast.shortcuts.answer(data)
    asked = Customer(customer.decode())
    if lookup_key is None:
        found = slow.checker.glance(asked)
        if found is not None and answer is not None:
            slow.checker.ages.add(found.age)
        expected = None if found is None else answers.entitlements(found)
    else:
        made = slow.checker.answer(asked, lookup_key.decode())
        found, expected = (None, None) if made is None else (made.finding, answers.decision(made))
    if expected is None or found is None:
        assert answer is None
        return
    said = Said.of(answer)
    assert said.body == orjson.loads(orjson.dumps(expected))
    assert found.age <= said.body["age"] < found.age + 0.0010001
    assert int(said.fields["Age"]) == ceil(found.age)
    late = fast.clock.now - parsedate_to_datetime(said.fields["Date"]).timestamp()
    assert 0 <= late < 2, "the second in which the answer was made"


# --- several at once -----------------------------------------------------------------------------------------------


async def test_several_requests_are_answered_in_order_up_to_the_first_that_has_no_shortcut(fast: Fast) -> None:
    """And it is said how far that was."""
    fast.house.remember(10, "pro")
    other = CHECK.replace(b"/pro", b"/other")
    post = b"POST /v1/checks HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"
    sent, done = fast.shortcuts.answers(CHECK + other + post + CHECK)
    assert done == len(CHECK + other)
    assert [b'"entitled":true' in part for part in sent.split(b"HTTP/1.1 200 OK")[1:]] == [True, False]
    assert fast.shortcuts.answers(post + CHECK) == (b"", 0)
    with fast.looking() as times:
        assert fast.shortcuts.answers(CHECK) == (b"", 0), "one alone is not asked about twice"
        assert times() == 0
    assert fast.shortcuts.answers(CHECK[:-1]) == (b"", 0)
    assert fast.shortcuts.answers(CHECK + CHECK[:-1])[1] == len(CHECK)


async def test_a_body_is_not_taken_for_a_request(fast: Fast) -> None:
    """Whoever hides one in a body gets one answer."""
    fast.house.remember(10, "pro")
    hidden = asking("/v1/customers/cus_ada/entitlements/pro", f"Content-Length: {len(CHECK)}") + CHECK
    assert fast.shortcuts.answers(hidden) == (b"", 0)


async def test_there_is_an_end_to_what_is_answered_at_once(fast: Fast) -> None:
    """A transport takes so much before it says that it is too much."""
    fast.house.remember(10.1, "pro")
    sent, done = fast.shortcuts.answers(CHECK * 1000)
    assert ENOUGH <= len(sent) < ENOUGH + 1000
    assert done % len(CHECK) == 0
    assert done < 1000 * len(CHECK)
    assert fast.requests.counts[canonical(ONE), 200] == done // len(CHECK)


# --- what callers call their requests ------------------------------------------------------------------------------


async def test_a_request_id_is_given_back_and_known_meanwhile(clock: FakeClock) -> None:
    """Only meanwhile; nothing of it is kept."""
    seen: list[str | None] = []

    def noting(*_: object) -> Lasting:
        seen.append(request_id.get())
        return Lasting(Heads(lambda _: {}), START - 1.5, 1.5, 100.0, b"{}", None, "A: b\r\n")

    made = Shortcuts([Shortcut("/a", Count(), noting)], Gate(["localhost"]), Tally([]), clock=clock)
    said = Said.of(made.answer(asking("/a", "X-Request-Id: abc 1")))
    assert (said.fields["X-Request-Id"], said.fields["A"], said.body) == ("abc 1", "b", {})
    assert not made._ready
    assert not made._said
    for strange in ("a" * 201,):
        assert "X-Request-Id" not in Said.of(made.answer(asking("/a", f"X-Request-Id: {strange}"))).fields
    assert not made._said, "there is no end of such names"
    assert seen == ["abc 1", None]
    assert request_id.get() is None


async def test_an_answer_without_an_age_in_its_body_is_repeated_too(clock: FakeClock) -> None:
    """As it is, for as long as its head holds."""
    count, told = Count(), Count()
    heads = Heads(lambda age: {"Age": str(age)})
    made = Shortcuts(
        [
            Shortcut(
                "/a",
                count,
                lambda *_: Lasting(heads, START - 1.5, clock() - START + 1.5, 100.0, b"[]", None, told=told),
            )
        ],
        Gate(["localhost"]),
        Tally([]),
        clock=clock,
    )
    ask = asking("/a")
    first = made.answer(ask)
    clock.advance(0.4)
    assert made.answer(ask) == first
    clock.advance(0.4)
    assert Said.of(made.answer(ask)).fields["Age"] == "3"
    assert (count.n, told.n) == (3, 1)


async def test_a_name_that_fails_is_forgotten_too(clock: FakeClock) -> None:
    """An error leaves the request's name nowhere."""

    def failing(*_: object) -> Lasting:
        raise ValueError("a defect")

    made = Shortcuts([Shortcut("/a", Count(), failing)], Gate(["localhost"]), Tally([]), clock=clock)
    with pytest.raises(ValueError, match="a defect"):
        made.answer(asking("/a", "X-Request-Id: abc"))
    assert request_id.get() is None


def test_a_listener_may_have_none() -> None:
    """Then nothing is answered."""
    assert Shortcuts.none().answer(CHECK) is None
    assert Shortcuts.none().answers(CHECK + CHECK) == (b"", 0)
