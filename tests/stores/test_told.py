"""What a store was told and has not written yet."""

from sidecar.model import Dirty, Span
from sidecar.stores.database import Mark
from sidecar.stores.told import Told
from tests.stores.keeping import ADA, BOB, NOW, listed

SPANS = (Span(0.0, NOW + 5),)


def test_of_each_customer_the_last_counts() -> None:
    """A list that was told after a mark has its own; a mark makes a list that was told before it dirty."""
    told = Told()
    told.mark(ADA, Mark(NOW + 10, SPANS))
    told.write(listed(ADA, "a"))
    told.write(listed(BOB, "b"))
    told.mark(BOB, Mark(NOW + 10, SPANS))
    assert told.lists == {ADA: listed(ADA, "a"), BOB: listed(BOB, "b", dirty=Dirty(NOW + 10, NOW + 5))}
    assert told.marks == {}
    assert len(told) == 2
    assert told.batch().lists == told.lists


def test_what_is_kept_is_seen_through_it() -> None:
    """A list takes the place of what is kept, a mark makes that dirty, and what is not kept stays unknown."""
    told = Told()
    assert told.overlay(ADA, listed(ADA, "a")) == listed(ADA, "a")
    told.mark(ADA, Mark(NOW + 10, SPANS))
    assert told.overlay(ADA, listed(ADA, "a")) == listed(ADA, "a", dirty=Dirty(NOW + 10, NOW + 5))
    assert told.overlay(ADA, None) is None
    told.write(listed(ADA, "b"))
    assert told.overlay(ADA, listed(ADA, "a")) == listed(ADA, "b")
    assert told.overlay(ADA, None) == listed(ADA, "b")


def test_a_second_mark_adds_to_the_first() -> None:
    """The list has to be taken after the last news, and was true up to before the first."""
    told = Told()
    told.mark(ADA, Mark(NOW + 10, SPANS))
    told.mark(ADA, Mark(NOW + 20, (Span(0.0, NOW + 15),)))
    assert told.overlay(ADA, listed(ADA, "a")) == listed(ADA, "a", dirty=Dirty(NOW + 20, NOW + 5))
