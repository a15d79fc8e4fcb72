"""What came and went."""

import asyncio
import contextlib
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.changes import Change, Changes, Kind, Reading
from tests.core.fetching import ADA, BOB, held, settled, unknown

BOOT = "b00t"


def ring(size: int = 100, *, changes: int = 0) -> Changes:
    """Return a ring in which so many changes were noted."""
    found = Changes(size=size, boot=BOOT)
    grant(found, changes)
    return found


def grant(changes: Changes, count: int) -> None:
    """Note ``count`` changes, one at a time."""
    for number in range(changes.last + 1, changes.last + 1 + count):
        changes.note(held(ADA, 0.0), held(ADA, float(number), f"key-{number}"))


def numbers(reading: Reading) -> list[int]:
    """Return the numbers of the changes."""
    return [change.number for change in reading.changes]


class TestNoting:
    def test_what_went_comes_before_what_came_each_by_name(self) -> None:
        """The difference of two lists has one order, whatever theirs was; all of it has the newer one's moment."""
        changes = ring()
        changes.note(held(BOB, 1.0, "z", "kept", "a"), held(BOB, 2.0, "n", "kept", "m"))
        assert changes.since(0) == Reading(
            [
                Change(1, Kind.REVOKED, BOB, "a", 2.0),
                Change(2, Kind.REVOKED, BOB, "z", 2.0),
                Change(3, Kind.GRANTED, BOB, "m", 2.0),
                Change(4, Kind.GRANTED, BOB, "n", 2.0),
            ],
            cursor=4,
            missed=False,
        )
        assert changes.counts == {Kind.GRANTED: 2, Kind.REVOKED: 2}
        assert changes.last == 4

    def test_a_first_list_is_no_change(self) -> None:
        """With nothing to compare with nothing is known to have come or gone."""
        changes = ring()
        changes.note(None, held(ADA, 1.0, "seats"))
        assert changes.last == 0

    def test_an_equal_plan_is_no_change(self) -> None:
        """Neither the same object nor an equal one, nor the same features in another order, tell anything."""
        changes = ring()
        old = held(ADA, 1.0, "a", "b")
        for new in (old, held(ADA, 2.0, "a", "b"), held(ADA, 2.0, "b", "a"), held(ADA, 2.0, "a", "b", "a")):
            changes.note(old, new)
        assert changes.last == 0
        assert changes.counts == {Kind.GRANTED: 0, Kind.REVOKED: 0}

    def test_an_unknown_customer_has_an_empty_list(self) -> None:
        """A customer that is deleted loses all; one that appears gets what it has."""
        changes = ring()
        changes.note(held(ADA, 1.0, "seats"), unknown(ADA, 2.0))
        changes.note(unknown(ADA, 2.0), held(ADA, 3.0, "seats"))
        assert [(change.kind, change.as_of) for change in changes.since(0).changes] == [
            (Kind.REVOKED, 2.0),
            (Kind.GRANTED, 3.0),
        ]

    def test_lookup_keys_are_compared_byte_for_byte(self) -> None:
        """Case and composition make another key, as they do in a check."""
        changes = ring()
        changes.note(held(ADA, 1.0, "Seats", "\u00e9"), held(ADA, 2.0, "seats", "e\u0301"))
        assert changes.last == 4


class TestReading:
    def test_a_reading_is_bounded_and_the_next_one_goes_on(self) -> None:
        """Each change comes once, in order, in portions of at most as many as asked for."""
        changes = ring(changes=5)
        first = changes.since(0, most=2)
        second = changes.since(first.cursor, most=2)
        third = changes.since(second.cursor, most=2)
        assert [numbers(reading) for reading in (first, second, third)] == [[1, 2], [3, 4], [5]]
        assert changes.since(third.cursor) == Reading([], cursor=5, missed=False)

    def test_a_reader_that_the_ring_left_behind_goes_on_from_now(self) -> None:
        """As long as the next change is held nothing is missed; one change later it is."""
        changes = ring(3, changes=5)
        assert numbers(changes.since(2)) == [3, 4, 5]
        assert changes.since(1) == Reading([], cursor=5, missed=True)

    def test_a_number_that_is_yet_to_come_was_missed(self) -> None:
        """Whoever has such a number has it from elsewhere, and is not left waiting for it."""
        assert ring(changes=2).since(3) == Reading([], cursor=2, missed=True)


class TestResuming:
    def test_the_last_id_names_the_run_and_the_number(self) -> None:
        """Before the first change there is an id too: of what comes before all."""
        assert ring().last_id() == "b00t-0"
        assert ring(changes=7).last_id() == "b00t-7"

    def test_every_id_whose_successor_is_held_can_be_resumed(self) -> None:
        """So can the last one, whose successor is yet to come."""
        changes = ring(3, changes=5)
        assert [changes.after(changes.id_of(number)) for number in range(7)] == [None, None, 2, 3, 4, 5, None]

    def test_who_saw_nothing_begins_now(self) -> None:
        """Without an id there is nothing to go on from, and nothing missed."""
        assert ring(changes=5).after(None) == 5

    @pytest.mark.parametrize(
        "strange",
        [
            "", "-", "1", "-1", "b00t", "b00t-", "b00t--1", "b00t-+1", "b00t- 1", "b00t-1 ", "b00t-01", "b00t-1_0",
            "b00t-\u0661", "b00t-1\n", "other-1", "B00T-1", "b00t-1, b00t-1", "x-b00t-1", "\udcff-1",
            "b00t-" + "9" * 18, "b00t-" + "9" * 19, "b00t-" + "1" * 10_000, "b" * 10_000,
        ],
        ids=range(23),
    )  # fmt: skip
    def test_what_is_not_an_id_of_this_run_cannot_be_resumed(self, strange: str) -> None:
        """Another run's, a malformed, an over-long one: none is an error, none is taken for something else."""
        assert ring(changes=20).after(strange) is None

    def test_a_run_may_be_called_anything(self) -> None:
        """The number is what follows the last hyphen."""
        changes = Changes(size=1, boot="a-1")
        assert changes.after("a-1-0") == 0
        assert changes.after("a-1") is None


class TestWaiting:
    async def test_all_who_wait_are_woken_by_a_change(self) -> None:
        """One change is news for every reader; a list that says nothing new is not."""
        changes = ring()
        async with asyncio.TaskGroup() as group:
            waiting = [group.create_task(changes.wait(0)) for _ in range(3)]
            await settled()
            changes.note(None, held(ADA, 1.0, "seats"))
            await settled()
            assert not any(one.done() for one in waiting)
            grant(changes, 1)

    async def test_what_is_already_there_is_not_waited_for(self) -> None:
        """Nor does waiting for a later one end with an earlier one."""
        changes = ring(changes=1)
        async with asyncio.timeout(1), asyncio.TaskGroup() as group:
            await changes.wait(0)
            later = group.create_task(changes.wait(2))
            await settled()
            grant(changes, 1)
            await settled()
            assert not later.done()
            grant(changes, 1)

    async def test_closing_ends_all_waiting(self) -> None:
        """Those who wait and those who come later go on at once; what was noted can still be read."""
        changes = ring(changes=2)
        async with asyncio.timeout(1), asyncio.TaskGroup() as group:
            _ = group.create_task(changes.wait(2))
            await settled()
            changes.close()
        assert changes.closed
        await changes.wait(2)
        assert numbers(changes.since(0)) == [1, 2]

    def test_readers_are_counted_while_they_read(self) -> None:
        """However a reader ends, it is counted no longer."""
        changes = ring()
        with contextlib.suppress(ConnectionResetError), changes.subscribed(), changes.subscribed():
            assert changes.subscribers == 2
            raise ConnectionResetError
        assert changes.subscribers == 0


class Step(NamedTuple):
    """What happens to a ring and its reader: changes, then a reading, perhaps by way of an id."""

    noted: int
    most: int
    resumes: bool


STEPS = st.lists(st.builds(Step, st.integers(0, 6), st.integers(1, 5), st.booleans()))


@given(size=st.integers(0, 8), before=st.integers(0, 12), steps=STEPS)
def test_a_reader_sees_each_change_once_in_order_or_is_told(size: int, before: int, steps: list[Step]) -> None:
    """Whenever it reads or comes back, it goes on where it was, and is told ``missed`` just when that is lost."""
    changes = ring(size, changes=before)
    cursor = changes.last
    for step in steps:
        grant(changes, step.noted)
        lost = changes.last - cursor > size
        if step.resumes:
            resumed = changes.after(changes.id_of(cursor))
            assert (resumed is None) == lost
            cursor = changes.last if resumed is None else resumed
            lost = False
        reading = changes.since(cursor, most=step.most)
        assert reading.missed == lost
        if lost:
            assert reading == Reading([], cursor=changes.last, missed=True)
        else:
            upto = min(cursor + step.most, changes.last)
            assert numbers(reading) == list(range(cursor + 1, upto + 1))
            assert [change.lookup_key for change in reading.changes] == [f"key-{number}" for number in numbers(reading)]
            assert reading.cursor == upto
        cursor = reading.cursor


@given(size=st.integers(0, 8), noted=st.integers(0, 12), id_=st.text() | st.integers(-1, 13).map("b00t-{}".format))
def test_no_id_is_an_error(size: int, noted: int, id_: str) -> None:
    """Whatever a client sends either resumes just where it says or cannot be resumed."""
    changes = ring(size, changes=noted)
    number = changes.after(id_)
    if number is None:
        assert id_ not in map(changes.id_of, range(max(0, noted - size), noted + 1))
    else:
        assert changes.id_of(number) == id_
        assert numbers(changes.since(number)) == list(range(number + 1, noted + 1))
