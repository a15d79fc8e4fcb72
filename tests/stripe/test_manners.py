"""How Stripe is asked: politely, patiently, and each request as urgently as it is."""

import pytest
from yarl import URL

from sidecar.errors import Broken, KeyRejected, Throttled, Unreachable
from sidecar.kit.limiter import Urgency
from sidecar.model import Flight
from sidecar.stripe.manners import Ask, Manners

MANNERS = Manners("https://api.stripe.com", "2026-10-28.endive")
URL_OF_A_LIST = URL("https://api.stripe.com/v1/entitlements/active_entitlements")


@pytest.mark.parametrize(
    ("error", "worth"),
    [
        (Broken("502"), True),
        (Unreachable("reset"), True),
        (Throttled("429"), True),
        (Throttled("429", after=3.0), 3.0),
        (Throttled("429", after=11.0), False),
        (KeyRejected("401"), False),
        (ZeroDivisionError(), False),
    ],
    ids=str,
)
def test_what_is_worth_a_retry(error: Exception, worth: bool | float) -> None:  # noqa: FBT001 -- a parameter of the table
    """What may be better next time, after as long as Stripe says, if there is so much time."""
    assert MANNERS.worth_a_retry(error) == worth


def test_a_request_is_as_urgent_as_its_flight() -> None:
    """Also when that becomes more urgent; without one, somebody waits for it."""
    assert Ask("relay", URL_OF_A_LIST, None).urgency() is Urgency.CALLER
    flight = Flight(took_off=0.0, urgency=Urgency.BACKGROUND)
    ask = Ask("list", URL_OF_A_LIST, None, flight)
    assert ask.urgency() is Urgency.BACKGROUND
    flight.urgency = Urgency.NEWS
    assert ask.urgency() is Urgency.NEWS
