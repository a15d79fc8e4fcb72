"""The facts."""

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import NoAnswer
from sidecar.model import (
    KEPT_SPANS,
    NOTHING,
    Customer,
    Dirty,
    Entitlement,
    Exchange,
    Feature,
    Finding,
    Flight,
    Plan,
    Policy,
    Reason,
    Snapshot,
    Source,
    Span,
    State,
    Unknown,
    advanced,
    begun,
    decide,
    decide_by_policy,
    marked,
    packed,
    verified_at,
)

ADA = Customer("cus_ada")
SEATS, EXPORT = Feature("feat_1", "seats"), Feature("feat_2", "export")
SEATS_AGAIN = Feature("feat_3", "seats")  # the key of an archived feature may be used again
MISSING = NoAnswer("unreachable", "no route")
KEYS = st.text(min_size=1, max_size=5)


def found(*features: Feature, unknown: Unknown | None = None) -> Finding:
    """Return a finding of twelve seconds ago with these features."""
    ids = [f"ent_{number}" for number in range(len(features))]
    return Finding(
        Snapshot(ADA, 100.0, Plan.of(features), packed(ids), unknown), Source.MEMORY, 100.0, 12.0, stale=False
    )


def test_a_customer_is_written_with_its_account() -> None:
    """As people write it in logs; the account that owns the key goes without saying."""
    assert str(ADA) == "cus_ada"
    assert str(Customer("cus_ada", "acct_1")) == "acct_1/cus_ada"
    assert Customer("cus_ada", "acct_1") != ADA


def test_equal_lists_are_equal_plans() -> None:
    """A plan is its features in their order; what follows from them is not compared."""
    assert Plan.of((SEATS, EXPORT)) == Plan.of((SEATS, EXPORT))
    assert Plan.of((SEATS, EXPORT)) != Plan.of((EXPORT, SEATS))
    assert hash(Plan.of((SEATS,))) == hash(Plan((SEATS,), frozenset()))


def test_a_lookup_key_counts_once_in_a_plan() -> None:
    """Two features may share one; both are kept, the set of keys has it once."""
    plan = Plan.of((SEATS, SEATS_AGAIN, EXPORT))
    assert plan.lookup_keys == {"seats", "export"}
    assert len(plan.features) == 3
    assert Plan.of(()) == NOTHING


def test_entitlements_are_in_stripes_order() -> None:
    """Each id goes with its feature."""
    snapshot = found(SEATS, EXPORT).snapshot
    assert snapshot.entitlements == [Entitlement("ent_0", SEATS), Entitlement("ent_1", EXPORT)]
    assert Snapshot(ADA, 1.0).entitlements == []


def test_ids_and_features_must_match() -> None:
    """A snapshot with an id too few has no entitlements to show, rather than wrong ones."""
    with pytest.raises(ValueError, match="argument"):
        _ = Snapshot(ADA, 1.0, Plan.of((SEATS, EXPORT)), packed(["ent_0"])).entitlements


@given(st.lists(st.text(st.characters(exclude_characters="\n"), min_size=1)))
def test_packed_ids_are_the_same_ids(ids: list[str]) -> None:
    """Whatever they are made of, in their order; other ids are packed as another text."""
    assert Snapshot(ADA, 1.0, packed_ids=packed(ids)).ids == tuple(ids)


@given(st.lists(st.text("a\n", max_size=2), max_size=4), st.lists(st.text("a\n", max_size=2), max_size=4))
def test_what_would_not_come_back_is_not_packed(one: list[str], other: list[str]) -> None:
    """An empty id, or one with a line break, is refused; so two lists of ids are packed alike only if they are alike."""
    for ids in (one, other):
        if not all(ids) or any("\n" in id_ for id_ in ids):
            with pytest.raises(ValueError, match="empty, or has a line break"):
                packed(ids)
            return
    assert (packed(one) == packed(other)) is (one == other)


@pytest.mark.parametrize(
    ("fact", "name"),
    [
        (Plan.of((SEATS,)), "features"),
        (Snapshot(ADA, 1.0), "taken_at"),
        (found(SEATS), "age"),
        (decide(found(SEATS), "seats"), "entitled"),
    ],
    ids=str,
)
def test_facts_are_frozen(fact: object, name: str) -> None:
    """What is shared between callers cannot be changed by one of them."""
    with pytest.raises(AttributeError):
        setattr(fact, name, None)
    assert not hasattr(fact, "__dict__")


def test_a_finding_is_as_of_its_snapshot() -> None:
    """When it was known to be true is when Stripe was asked, whoever is told when."""
    assert found(SEATS).as_of == 100.0


@given(st.lists(KEYS), KEYS)
def test_a_check_holds_if_any_entitlement_has_the_key(keys: list[str], asked: str) -> None:
    """Compared byte for byte: no case folding, no trimming, no globs."""
    decision = decide(found(*(Feature(f"feat_{n}", key) for n, key in enumerate(keys))), asked)
    assert decision.entitled is any(key == asked for key in keys)
    assert decision.reason is (Reason.ENTITLED if decision.entitled else Reason.NOT_ENTITLED)


def test_one_of_two_features_with_a_key_is_enough() -> None:
    """Whichever of them the customer holds."""
    assert decide(found(SEATS), "seats").entitled is True
    assert decide(found(SEATS_AGAIN), "seats").entitled is True


def test_an_unknown_customer_is_not_just_not_entitled() -> None:
    """The answer is no all the same."""
    decision = decide(found(unknown=Unknown(404, "No such customer")), "seats")
    assert (decision.entitled, decision.reason) == (False, Reason.UNKNOWN_CUSTOMER)


def test_a_decision_shows_what_it_was_made_from() -> None:
    """Customer, key, source and finding are in it; nothing is missing."""
    finding = found(SEATS)
    decision = decide(finding, "seats")
    assert (decision.customer, decision.lookup_key, decision.source) == (ADA, "seats", Source.MEMORY)
    assert decision.finding is finding
    assert decision.missing is None


@pytest.mark.parametrize(
    ("policy", "entitled"), [(Policy.DENY, False), (Policy.ALLOW, True), (Policy.ERROR, None)], ids=str
)
def test_a_policys_answer_says_so(policy: Policy, entitled: bool | None) -> None:  # noqa: FBT001 -- a parameter of the table
    """It is always ``unavailable`` from ``policy``, claims no age, and keeps the reason for not knowing."""
    decision = decide_by_policy(ADA, "seats", policy, MISSING)
    assert decision.entitled is entitled
    assert (decision.customer, decision.lookup_key) == (ADA, "seats")
    assert (decision.reason, decision.source, decision.finding) == (Reason.UNAVAILABLE, Source.POLICY, None)
    assert decision.missing is MISSING


def test_the_words_of_the_api_are_these() -> None:
    """They are in answers, metrics and settings: changing one is a breaking change."""
    assert [*Reason] == ["entitled", "not_entitled", "unknown_customer", "unavailable"]
    assert [*Source] == ["memory", "store", "upstream", "policy"]
    assert [*Policy] == ["deny", "allow", "error"]
    assert [*State] == ["fresh", "stale", "dirty", "expired", "absent"]


def test_a_flights_log_begins_empty() -> None:
    """Each has a list of exchanges of its own."""
    one, other = Flight(1.0), Flight(2.0)
    one.exchanges.append(Exchange(1.0, "200", "req_1"))
    assert other == Flight(took_off=2.0, exchanges=deque(), pages=0, landed=None, outcome=None, detail=None)


class TestWhatIsVouchedFor:
    """Up to when a list is known to have been true."""

    ADA = Customer("cus_1")

    def test_a_list_by_itself_is_as_old_as_it_is(self) -> None:
        """Without a span, and from before every span."""
        assert verified_at(Snapshot(self.ADA, 50.0), ()) == 50.0
        assert verified_at(Snapshot(self.ADA, 50.0), (Span(60.0, 90.0),)) == 50.0

    def test_a_span_vouches_for_the_lists_that_were_taken_in_it(self) -> None:
        """The newest that began before; what an older one vouched for gets no younger."""
        spans = (Span(10.0, 20.0), Span(40.0, 90.0))
        assert verified_at(Snapshot(self.ADA, 15.0), spans) == 20.0
        assert verified_at(Snapshot(self.ADA, 30.0), spans) == 30.0
        assert verified_at(Snapshot(self.ADA, 40.0), spans) == 90.0
        assert verified_at(Snapshot(self.ADA, 95.0), spans) == 95.0

    def test_nothing_vouches_for_not_being_known(self) -> None:
        """That a customer is made is no change that the feed hears of."""
        assert verified_at(Snapshot(self.ADA, 50.0, unknown=Unknown(404, "No")), (Span(10.0, 90.0),)) == 50.0

    def test_news_ends_it(self) -> None:
        """From then on it is true up to where it was before; later news changes only when it has to be read."""
        dirty = marked(Snapshot(self.ADA, 50.0), 80.0, (Span(10.0, 70.0),))
        assert dirty.dirty == Dirty(80.0, 70.0)
        assert verified_at(dirty, (Span(10.0, 95.0),)) == 70.0
        assert marked(dirty, 99.0, (Span(10.0, 95.0),)).dirty == Dirty(99.0, 70.0)

    def test_spans_begin_and_advance(self) -> None:
        """The last ones are remembered; none goes back."""
        spans = advanced(begun((), 5.0), 9.0)
        assert advanced(spans, 7.0) == (Span(5.0, 9.0),)
        for since in range(KEPT_SPANS + 5):
            spans = begun(spans, 100.0 + since)
        assert len(spans) == KEPT_SPANS
        assert spans[-1] == Span(104.0 + KEPT_SPANS, 104.0 + KEPT_SPANS)
