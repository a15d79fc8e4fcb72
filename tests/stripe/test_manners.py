"""How Stripe is asked: politely, patiently, and each request as urgently as it is."""

from dataclasses import replace

import pytest
from yarl import URL

from sidecar.errors import Broken, KeyRejected, OverBudget, Throttled, Unreachable, UpstreamError
from sidecar.kit.limiter import Urgency
from sidecar.model import Flight
from sidecar.stripe.manners import Ask, Manners

MANNERS = Manners("https://api.stripe.com", "2026-10-28.endive")
URL_OF_A_LIST = URL("https://api.stripe.com/v1/entitlements/active_entitlements")


def test_pauses_double_and_have_an_end() -> None:
    """From a quarter of a second to four, each with a quarter more by chance, so that not all come back at once."""
    patient = replace(MANNERS, attempts=99)
    assert [patient.pause_after(Broken("502"), n, 0.0, 0.0) for n in range(1, 8)] == [
        0.25,
        0.5,
        1.0,
        2.0,
        4.0,
        4.0,
        4.0,
    ]
    assert [patient.pause_after(Broken("502"), n, 9.9, 1.0) for n in (1, 2, 5, 98)] == [0.5, 0.75, 4.0, 4.0]


def test_stripe_says_how_long_a_pause_is() -> None:
    """Neither doubled nor shortened, however many there were, and nothing is added; zero says nothing."""
    assert [MANNERS.pause_after(Throttled("429", after=7.0), n, 0.0, 1.0) for n in (1, 2, 3)] == [7.0, 7.0, 7.0]
    assert [
        MANNERS.pause_after(error, 1, 0.0, 0.0) for error in (Throttled("429", after=0.0), Unreachable("reset"))
    ] == [0.25, 0.25]


@pytest.mark.parametrize(
    ("error", "attempt", "took"),
    [
        (Broken("502"), 4, 0.0),
        (Broken("502"), 1, 10.0),
        (Throttled("429", after=1.0), 4, 0.0),
        (Throttled("429", after=11.0), 1, 0.0),
        (Throttled("429", after=7.0, retry=False), 1, 0.0),
        (OverBudget("none left"), 1, 0.0),
        (KeyRejected("401"), 1, 0.0),
    ],
    ids=range(7),
)
def test_the_last_attempt_has_no_pause_after_it(error: UpstreamError, attempt: int, took: float) -> None:
    """It is the fourth, or one that fails after ten seconds, or one that another would not better."""
    assert MANNERS.pause_after(error, attempt, took, 0.0) is None


def test_a_request_is_as_urgent_as_its_flight() -> None:
    """Also when that becomes more urgent; without one, somebody waits for it."""
    assert Ask("relay", URL_OF_A_LIST, None).urgency() is Urgency.CALLER
    flight = Flight(took_off=0.0, urgency=Urgency.BACKGROUND)
    ask = Ask("list", URL_OF_A_LIST, None, flight)
    assert ask.urgency() is Urgency.BACKGROUND
    flight.urgency = Urgency.NEWS
    assert ask.urgency() is Urgency.NEWS
