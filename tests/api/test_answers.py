"""Decisions as JSON and headers."""

from datetime import datetime

from hypothesis import given
from hypothesis import strategies as st

from sidecar.api.answers import MOST_MOMENTS, Headers, Moments, etag, moment, rounded_up
from sidecar.core.wishes import NO_WISHES
from sidecar.model import Customer, Feature, Finding, Plan, Snapshot, Source, Unknown, packed
from sidecar.settings import Freshness

ADA = Customer("cus_ada")


@given(st.floats(min_value=0, max_value=4e9))
def test_moments_are_rounded_down_and_ages_up(value: float) -> None:
    """No answer claims to be younger than it is."""
    assert rounded_up(value) >= value
    assert rounded_up(value) - value <= 0.0011
    read = datetime.fromisoformat(moment(value)).timestamp()
    assert read <= value
    assert value - read <= 0.0011


def test_a_validator_depends_on_the_entitlements_only() -> None:
    """Order and time do not change it; an id, a key or a feature does."""
    a, b = Feature("feat_1", "a"), Feature("feat_2", "b")
    one = Snapshot(ADA, 1.0, Plan.of((a, b)), packed(["ent_1", "ent_2"]))
    assert etag(one) == etag(Snapshot(ADA, 2.0, Plan.of((b, a)), packed(["ent_2", "ent_1"])))
    for other in (
        Snapshot(ADA, 1.0, Plan.of((a,)), packed(["ent_1"])),
        Snapshot(ADA, 1.0, Plan.of((a, b)), packed(["ent_1", "ent_3"])),
        Snapshot(ADA, 1.0, Plan.of((a, Feature("feat_3", "b"))), packed(["ent_1", "ent_2"])),
        Snapshot(ADA, 1.0, Plan.of((a, Feature("feat_2", "c"))), packed(["ent_1", "ent_2"])),
    ):
        assert etag(other) != etag(one)


def test_the_time_to_live_of_an_unknown_customer_is_its_own() -> None:
    """ttl counts from unknown_for where Stripe knows no such customer, and goes below zero once it is stale."""
    headers = Headers(Freshness(fresh_for=300, unknown_for=60))
    unknown = Snapshot(ADA, 0.0, unknown=Unknown(400, "No such customer"))
    found = Finding(unknown, Source.MEMORY, 0.0, 10.0, stale=False)
    assert headers.of(found, NO_WISHES)["Cache-Status"].endswith("ttl=50")
    known = Finding(Snapshot(ADA, 0.0), Source.MEMORY, 0.0, 310.5, stale=True)
    assert headers.of(known, NO_WISHES)["Cache-Status"] == "entitlement-sidecar; hit; ttl=-11"
    assert headers.of(known, NO_WISHES)["Age"] == "311"
    assert headers.of(None, NO_WISHES)["Cache-Status"] == "entitlement-sidecar; fwd=miss; detail=policy"


def test_moments_are_remembered_up_to_a_bound() -> None:
    """However many lists were taken at moments of their own."""
    moments = Moments()
    for at in range(MOST_MOMENTS + 10):
        assert moments[at / 8] == moment(at / 8)
    assert len(moments) == 10
