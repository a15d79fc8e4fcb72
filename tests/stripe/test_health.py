"""Health says since when and why, and the log has a line per change."""

import logging

import pytest

from sidecar.errors import (
    Broken,
    CircuitOpen,
    KeyRejected,
    OverBudget,
    PermissionMissing,
    Throttled,
    UpstreamError,
)
from sidecar.stripe.health import Failure, Health
from tests.fakes import FakeClock


@pytest.fixture
def health(clock: FakeClock) -> Health:
    return Health(clock)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "sidecar")
    return caplog


def test_before_the_first_request_nothing_is_known(health: Health, clock: FakeClock) -> None:
    """A sidecar that nobody asked yet has not tried."""
    assert (health.state, health.since, health.last_failure) == ("untried", clock.now, None)


def test_a_first_answer_is_no_news(health: Health, clock: FakeClock, said: pytest.LogCaptureFixture) -> None:
    """That Stripe answers is expected, so nothing is logged."""
    clock.advance(5)
    health.succeeded()
    assert (health.state, health.since) == ("ok", clock.now)
    assert not said.messages


def test_since_is_the_moment_of_the_change(health: Health, clock: FakeClock) -> None:
    """Further answers of the same kind do not renew it."""
    health.succeeded()
    since = clock.now
    clock.advance(60)
    health.succeeded()
    assert health.since == since


def test_a_failure_is_said_once(health: Health, clock: FakeClock, said: pytest.LogCaptureFixture) -> None:
    """A thousand failures of one kind are one line; the last one is remembered in full."""
    for number in range(1000):
        clock.advance(1)
        health.failed(Broken(f"failure {number}", status=500, request_id=f"req_{number}"))
    assert said.messages == ["reading entitlements from Stripe fails (broken): failure 0"]
    assert [(record.levelname, record.__dict__["stripe_request_id"]) for record in said.records] == [
        ("WARNING", "req_0")
    ]
    assert health.last_failure == Failure(clock.now, "broken", "failure 999", 500, "req_999")
    assert (health.state, health.since) == ("broken", clock.now - 999)


@pytest.mark.parametrize("then", [Throttled("too many"), KeyRejected("no such key"), OverBudget("none left")])
def test_a_failure_of_another_kind_is_a_change(
    health: Health, clock: FakeClock, said: pytest.LogCaptureFixture, then: UpstreamError
) -> None:
    """Whoever reads the log sees that the reason changed."""
    health.failed(Broken("an unknown error"))
    clock.advance(7)
    health.failed(then)
    assert said.messages[1:] == [f"reading entitlements from Stripe fails ({then.code}): {then}"]
    assert (health.state, health.since) == (then.code, clock.now)


def test_recovery_is_said_once_with_how_long_it_took(
    health: Health, clock: FakeClock, said: pytest.LogCaptureFixture
) -> None:
    """The line names the failure that ended; the failure stays readable."""
    health.failed(Broken("an unknown error"))
    failed_at = clock.now
    clock.advance(12.34)
    health.succeeded()
    health.succeeded()
    assert said.messages[1:] == ["reading entitlements works again, after 12.3 s of broken"]
    assert said.records[1].levelname == "INFO"
    assert (health.state, health.since) == ("ok", clock.now)
    assert health.last_failure is not None
    assert health.last_failure.at == failed_at


def test_a_missing_permission_is_named(clock: FakeClock, said: pytest.LogCaptureFixture) -> None:
    """By the name that Stripe's dashboard has for it, with what follows."""
    health = Health(clock, what="events", needs="rak_event_read", without="until it works, nothing does")
    health.failed(PermissionMissing("You may not"))
    assert said.messages == [
        (
            "reading events from Stripe fails (permission_missing): You may not; "
            "the key lacks the permission rak_event_read; until it works, nothing does"
        )
    ]


def test_what_the_key_may_do_is_known_by_what_stripe_says_of_it(health: Health) -> None:
    """An answer and a 403 tell; trouble on the way does not, and of a rejected or another key nothing is known."""
    seen = []
    for happens in (
        lambda: health.failed(Broken("half")),
        health.succeeded,
        lambda: health.failed(Broken("half")),
        lambda: health.failed(KeyRejected("no")),
        lambda: health.failed(PermissionMissing("no")),
        lambda: health.failed(Throttled("429")),
        health.forget,
    ):
        happens()
        seen.append(health.may_read)
    assert seen == [None, True, True, None, False, False, None]


def test_an_open_breaker_hides_no_cause(health: Health, clock: FakeClock, said: pytest.LogCaptureFixture) -> None:
    """What Stripe's last failure was goes on to be told; to who had not heard of it, it is news."""
    is_open = CircuitOpen("nothing is asked", last=Broken("Stripe answered 502", status=502, request_id="req_1"))
    health.failed(KeyRejected("no such key"))
    failed_at = clock.now
    clock.advance(7)
    health.failed(is_open)
    assert (health.state, health.since) == ("key_rejected", failed_at)
    health.succeeded()
    clock.advance(7)
    health.failed(is_open)
    assert health.last_failure == Failure(clock.now, "broken", "Stripe answered 502", 502, "req_1")
    assert (health.state, said.messages[-1]) == (
        "broken",
        "reading entitlements from Stripe fails (broken): Stripe answered 502",
    )
