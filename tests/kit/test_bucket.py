"""A token bucket that slows down and recovers."""

import logging
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.kit.bucket import LEAST, LONGEST_PAUSE, RECOVERY, Bucket
from tests.fakes import FakeClock

STEPS = 64
"""Steps in a second of the naive model, whose rate stands still during each."""


class Naive:
    """A bucket that is filled a sixty-fourth of a second at a time."""

    def __init__(self, rate: float, burst: float) -> None:
        self.configured = self.rate = rate
        self.burst = self.tokens = burst
        self.paused = 0
        self.halved_at = -(10**9)

    def step(self) -> None:
        if self.paused:
            self.paused -= 1
            return
        slower = self.rate
        self.rate = min(self.configured, self.rate + self.configured / 120 / STEPS)
        self.tokens = min(self.burst, self.tokens + (slower + self.rate) / 2 / STEPS)

    def slow_down(self, now: int, sent: int, after: int | None) -> None:
        if sent > self.halved_at:
            self.halved_at = now
            self.rate = max(self.rate / 2, self.configured / 8)
            self.tokens = min(self.tokens, 0.0)
        if after:
            self.tokens = min(self.tokens, 0.0)
            self.paused = max(self.paused, min(after, 60) * STEPS)


WHAT = st.one_of(
    st.tuples(st.just("pass"), st.integers(1, 30 * STEPS), st.none()),
    st.tuples(st.just("take"), st.just(0), st.none()),
    st.tuples(st.just("refused"), st.integers(0, 10 * STEPS), st.none() | st.integers(0, 90)),
)


@given(st.sampled_from([0.5, 2.0, 20.0]), st.sampled_from([1.0, 5.0]), st.lists(WHAT, max_size=25))
def test_it_holds_what_a_naive_model_says(rate: float, burst: float, story: list[tuple[str, int, int | None]]) -> None:
    """Tokens and rate, through decreases, pauses and recovery; and when there will be so many is when there are."""
    clock = FakeClock()
    bucket, naive, now = Bucket(rate=rate, burst=burst, clock=clock), Naive(rate, burst), 0
    for what, number, after in story:
        match what:
            case "pass":
                for _ in range(number):
                    naive.step()
                now += number
                clock.advance(number / STEPS)
            case "take" if naive.tokens > 1.01:
                naive.tokens -= 1
                bucket.take()
            case "refused":
                naive.slow_down(now, now - number, after)
                bucket.slow_down(clock.now - number / STEPS, "too fast", after=after)
            case _:
                pass
        assert bucket.tokens == pytest.approx(naive.tokens, abs=1e-2)
        assert bucket.rate == pytest.approx(naive.rate, abs=rate * 1e-3)
        assert rate * LEAST <= bucket.rate <= rate
    assert (bucket.slowed_at is None) == (bucket.rate == rate)
    wanted = min(burst, max(0.0, naive.tokens) + 1)
    clock.now = bucket.until(wanted)
    assert bucket.tokens == pytest.approx(wanted, abs=1e-3)


@pytest.fixture
def bucket(clock: FakeClock) -> Bucket:
    return Bucket(rate=20, burst=5, clock=clock)


def test_a_refusal_halves_the_rate_and_takes_what_is_in_hand(bucket: Bucket, clock: FakeClock) -> None:
    """What was saved up for a moment like this is not for a moment like this."""
    clock.advance(10)
    bucket.slow_down(clock.now, "endpoint-rate")
    assert (bucket.rate, bucket.tokens, bucket.throttled, bucket.slowed_at) == (10, 0, 1, clock.now)


def test_many_refusals_of_one_moment_count_once(bucket: Bucket, clock: FakeClock) -> None:
    """What was under way when the rate was halved met the same trouble."""
    sent_at = clock.now
    clock.advance(1)
    for _ in range(20):
        bucket.slow_down(sent_at, "endpoint-rate")
    assert (bucket.rate, bucket.throttled) == (10, 20)
    clock.advance(1)
    bucket.slow_down(clock.now - 0.5, "endpoint-rate")
    assert bucket.rate == pytest.approx(5, rel=0.02)


def test_it_never_stops_altogether(bucket: Bucket, clock: FakeClock) -> None:
    """A part of the rate stays, or nobody would notice that all is well again."""
    for _ in range(100):
        clock.advance(0.01)
        bucket.slow_down(clock.now, "global-rate")
    assert bucket.rate == 20 * LEAST


def test_it_recovers_in_a_minute_from_the_half(bucket: Bucket, clock: FakeClock) -> None:
    """Evenly: after half of the time, half of what was lost."""
    bucket.slow_down(clock.now, "endpoint-rate")
    for rate in (15.0, 20.0, 20.0):
        clock.advance(RECOVERY / 2)
        assert bucket.rate == pytest.approx(rate)
    assert bucket.slowed_at is None


@pytest.mark.parametrize(("after", "pause"), [(7.0, 7.0), (3600.0, LONGEST_PAUSE)])
def test_who_wants_to_be_left_alone_is(bucket: Bucket, clock: FakeClock, after: float, pause: float) -> None:
    """No token and no recovery for so many seconds; but not for ever. A token that comes back is dropped."""
    bucket.slow_down(clock.now, "endpoint-rate", after=after)
    clock.advance(pause - 0.5)
    bucket.put_back()
    assert (bucket.tokens, bucket.rate) == (0, 10)
    assert bucket.until(0.0) == clock.now
    clock.advance(0.5 + 0.1)
    assert bucket.tokens == pytest.approx(1, rel=0.01)


def test_an_old_request_may_still_say_how_long_to_wait(bucket: Bucket, clock: FakeClock) -> None:
    """It halves nothing again; the seconds count from its answer, the longest of several."""
    sent_at = clock.now
    bucket.slow_down(sent_at, "endpoint-rate", after=2)
    clock.advance(1)
    for after in (5, 3, 0, None):
        bucket.slow_down(sent_at, "endpoint-rate", after=after)
    assert bucket.rate == 10
    assert bucket.until(1) == pytest.approx(clock.now + 5 + 0.1, rel=1e-3)


def test_the_log_is_told_when_it_begins_and_when_it_is_over(
    bucket: Bucket, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Once each, however many refusals there were between."""
    caplog.set_level(logging.INFO)
    for _ in range(10):
        clock.advance(1)
        bucket.slow_down(clock.now, "Stripe says endpoint-rate")
    clock.advance(1000)
    for _ in range(3):
        assert bucket.rate == 20
    assert caplog.messages == [
        "the budget is halved to 10 requests/s: Stripe says endpoint-rate",
        "the budget is back at 20 requests/s, 1009 s after it was halved",
    ]


def test_what_is_asked_for_is_never_in_the_past(bucket: Bucket, clock: FakeClock) -> None:
    """There is enough already: now."""
    assert bucket.until(5) == clock.now
    assert bucket.until(-inf) == clock.now
