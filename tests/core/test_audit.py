"""Can the feed be trusted?"""

from dataclasses import replace

import pytest

from sidecar.core.audit import Audit
from sidecar.core.watermarks import Watermarks
from sidecar.model import Customer, Dirty, Snapshot
from tests.core.fetching import ADA, BOB, held, unknown
from tests.fakes import FakeClock

BEGAN, VOUCHED, READ = 0.0, 100.0, 150.0
"""When the feed's reading began; up to when it has vouched; when a list was read again."""


class Office:
    """An audit of the key's own account and of a connected one; both are read."""

    def __init__(self) -> None:
        self.watermarks = Watermarks()
        self.audit = Audit(self.watermarks, clock=FakeClock(READ))
        for account in (None, "acct_1"):
            self.watermarks.begin(account, BEGAN)
            self.watermarks.advance(account, VOUCHED)

    def advance(self, until: float, account: str | None = None) -> None:
        """Let the account's feed go on, and settle what it should have told of."""
        self.watermarks.advance(account, until)
        self.audit.settle(account)

    def counts(self) -> tuple[int, int]:
        """Return how many lists were compared, and how many changed without an event."""
        return self.audit.checked, self.audit.differences


@pytest.fixture
def office() -> Office:
    return Office()


class TestADifference:
    def test_is_counted_once_the_watermark_has_passed_the_reading(
        self, office: Office, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Not before: its event may be on the way. It is counted once, and said."""
        office.audit.compare(held(ADA, 50.0, "a"), held(ADA, READ, "b"))
        for until, differences in [(READ - 0.5, 0), (READ, 1), (READ + 100, 1)]:
            office.advance(until)
            assert office.counts() == (1, differences)
        assert [record.message for record in caplog.records] == [
            "1 lists have changed without an event: the feed missed something"
        ]

    @pytest.mark.parametrize(
        ("before", "after"), [((), ("a",)), (("a",), ()), (("a",), ("a", "b")), (("a", "b"), ("a",))], ids=str
    )
    def test_is_any_entitlement_that_came_or_went(
        self, office: Office, before: tuple[str, ...], after: tuple[str, ...]
    ) -> None:
        """More is as much of a miss as less."""
        office.audit.compare(held(ADA, 50.0, *before), held(ADA, READ, *after))
        office.advance(READ)
        assert office.counts() == (1, 1)

    def test_is_not_another_order(self, office: Office) -> None:
        """Stripe promises none."""
        office.audit.compare(held(ADA, 50.0, "a", "b"), held(ADA, READ, "b", "a"))
        office.advance(READ)
        assert office.counts() == (1, 0)

    def test_is_explained_by_news_that_comes_after_the_reading(self, office: Office) -> None:
        """An event may become visible later than its change."""
        office.audit.compare(held(ADA, 50.0, "a"), held(ADA, READ, "b"))
        office.audit.explain(ADA)
        office.advance(READ)
        assert office.counts() == (1, 0)

    def test_is_not_explained_by_news_of_another(self, office: Office) -> None:
        """Nor is other news asked for before there is a difference."""
        office.audit.explain(ADA)
        office.audit.compare(held(ADA, 50.0, "a"), held(ADA, READ, "b"))
        office.audit.explain(BOB)
        office.audit.explain(Customer(ADA.id, "acct_1"))
        office.advance(READ)
        assert office.counts() == (1, 1)

    def test_of_one_account_is_not_settled_by_anothers_watermark(self, office: Office) -> None:
        """Each account's events are read on their own."""
        office.audit.compare(held(BOB, 50.0, "a"), held(BOB, READ, "b"))
        office.advance(READ + 100)
        assert office.counts() == (1, 0)
        office.advance(READ, "acct_1")
        assert office.counts() == (1, 1)

    def test_of_many_is_counted_for_each(self, office: Office, caplog: pytest.LogCaptureFixture) -> None:
        """One line says how many."""
        for number in range(3):
            customer = Customer(f"cus_{number}")
            office.audit.compare(held(customer, 50.0, "a"), held(customer, READ, "b"))
        office.advance(READ)
        assert office.counts() == (3, 3)
        assert len(caplog.records) == 1

    def test_settles_nothing_where_nobody_reads(self, office: Office) -> None:
        """An account without a feed has no watermark that could pass."""
        office.audit.settle("acct_2")
        assert office.counts() == (0, 0)


def test_a_list_that_is_the_same_speaks_for_the_feed(office: Office) -> None:
    """It was compared, and nothing was missed."""
    office.audit.compare(held(ADA, 50.0, "a"), held(ADA, READ, "a"))
    office.advance(READ + 100)
    assert office.counts() == (1, 0)


SKIPPED: dict[str, tuple[Snapshot | None, Snapshot]] = {
    "a first list": (None, held(ADA, READ, "b")),
    "dirty before": (replace(held(ADA, 50.0, "a"), dirty=Dirty(120.0, VOUCHED)), held(ADA, READ, "b")),
    "dirty after": (held(ADA, 50.0, "a"), replace(held(ADA, READ, "b"), dirty=Dirty(160.0, READ))),
    "unknown before": (unknown(ADA, 50.0), held(ADA, READ, "b")),
    "unknown after": (held(ADA, 50.0, "a"), unknown(ADA, READ)),
    "from before the feed": (held(ADA, BEGAN - 1, "a"), held(ADA, READ, "b")),
    "taken at the watermark": (held(ADA, VOUCHED, "a"), held(ADA, READ, "b")),
    "younger than the watermark": (held(ADA, VOUCHED + 1, "a"), held(ADA, READ, "b")),
    "of an account that is not read": (
        held(Customer("cus_1", "acct_2"), 50.0, "a"),
        held(Customer("cus_1", "acct_2"), READ, "b"),
    ),
}


@pytest.mark.parametrize("pair", SKIPPED.values(), ids=SKIPPED)
def test_what_the_feed_never_vouched_for_is_not_held_against_it(
    office: Office, pair: tuple[Snapshot | None, Snapshot]
) -> None:
    """Where it was heard of, or never promised, there is nothing to compare."""
    office.audit.compare(*pair)
    office.advance(READ + 100)
    assert office.counts() == (0, 0)


def test_what_changed_in_a_gap_is_not_held_against_the_feed(office: Office) -> None:
    """That changes were missed then is known, and was said."""
    office.watermarks.begin(None, VOUCHED + 20)
    office.advance(VOUCHED + 40)
    office.audit.compare(held(ADA, 50.0, "a"), held(ADA, READ, "b"))
    office.advance(READ)
    assert office.counts()[1] == 0


def test_what_was_found_before_a_gap_is_forgiven(office: Office) -> None:
    """The feed admits to having missed something, and that may be it; another account's stays."""
    for customer in (ADA, BOB):
        office.audit.compare(held(customer, 50.0, "a"), held(customer, READ, "b"))
    office.audit.forgive(ADA.account)
    office.advance(READ)
    office.advance(READ, BOB.account)
    assert office.counts() == (2, 1)


def test_a_change_during_the_reading_is_not_late_yet(office: Office) -> None:
    """The list may show what changed after its first page was asked for, and the event comes up to a lag later."""
    office.audit.compare(held(ADA, 50.0, "a"), held(ADA, READ - 20, "b"))
    office.advance(READ - 10)
    assert office.counts() == (1, 0)
