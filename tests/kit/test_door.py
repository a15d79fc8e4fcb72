"""Who is inside, and who leaves when one more comes."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from sidecar.kit.door import REASONS, Door


class Guest:
    """Somebody who is idle since a moment, or busy (None)."""

    def __init__(self, idle: float | None = None) -> None:
        self.idle = idle
        self.why = ""
        self.looked = 0

    def idle_since(self) -> float | None:
        self.looked += 1
        return self.idle

    def finish(self) -> None:
        self.why = "finished"

    def leave(self, why: str) -> None:
        self.why = why


def test_all_are_let_in_while_there_is_room() -> None:
    """Busy or not, nobody has to leave, and nobody is even looked at."""
    door, guests = Door(3), [Guest(), Guest(1.0), Guest(2.0)]
    assert all(door.admit(guest) for guest in guests)
    assert (len(door), sum(guest.looked for guest in guests)) == (3, 0)
    assert door.shown_out == dict.fromkeys(REASONS, 0)


def test_one_more_takes_the_place_of_who_is_idle_longest() -> None:
    """Busy ones stay; when all are busy the new one stays outside."""
    door, busy, old, young = Door(3), Guest(), Guest(1.0), Guest(2.0)
    for guest in (busy, young, old):
        door.admit(guest)
    assert door.admit(Guest())
    assert (old.why, young.why) == ("evicted", "")
    assert door.admit(Guest())
    assert young.why == "evicted"
    assert not door.admit(Guest())
    assert (len(door), busy.why) == (3, "")
    assert (door.shown_out["evicted"], door.shown_out["refused"]) == (2, 1)


def test_who_was_idle_and_is_not_any_more_stays() -> None:
    """What was seen in an earlier look is only believed while it is so."""
    door, guests = Door(3), [Guest(1.0), Guest(2.0), Guest(3.0)]
    for guest in guests:
        door.admit(guest)
    assert door.admit(Guest())
    guests[1].idle = None
    assert door.admit(Guest())
    assert [guest.why for guest in guests] == ["evicted", "", "evicted"]
    guests[1].idle = 5.0
    assert door.admit(Guest())
    assert guests[1].why == "evicted"


def test_a_look_at_all_serves_many() -> None:
    """However many come at once, those inside are not looked at again for each of them."""
    door, guests = Door(100), [Guest(float(number)) for number in range(100)]
    for guest in guests:
        door.admit(guest)
    for _ in range(100):
        assert door.admit(Guest())
    assert all(guest.why == "evicted" and guest.looked == 2 for guest in guests)


@given(st.lists(st.one_of(st.sampled_from(["busy", "idle"]), st.integers(0, 9)), max_size=60), st.integers(1, 8))
def test_against_a_naive_door(events: list[int | str], most: int) -> None:
    """Guests come, busy or idle, change or leave by themselves; those who stay are those of a model."""
    door = Door(most)
    inside: list[Guest] = []
    for step, event in enumerate(events):
        if isinstance(event, int):  # somebody inside does something: turns idle, turns busy, or goes
            if event < len(inside):
                guest = inside[event]
                if event % 3 == 2:
                    inside.remove(guest)
                    door.left(guest)
                    door.left(guest)
                else:
                    guest.idle = float(step) if guest.idle is None else None
            continue
        guest = Guest(float(step) if event == "idle" else None)
        idle = [one for one in inside if one.idle is not None]
        full = len(inside) >= most
        assert door.admit(guest) is (not full or bool(idle))
        if full and idle:
            gone = [one for one in inside if one.why]
            assert len(gone) == 1
            assert gone[0].idle == min(one.idle for one in idle if one.idle is not None)
            inside.remove(gone[0])
        if not full or idle:
            inside.append(guest)
        assert len(door) == len(inside) <= most


async def test_it_is_known_when_the_last_has_left() -> None:
    """A shut door lets nobody in, and empties."""
    door, guests = Door(3), [Guest(), Guest()]
    await door.emptied()
    for guest in guests:
        door.admit(guest)
    door.shut()
    assert not door.admit(Guest())
    waiting = asyncio.gather(door.emptied())
    door.left(guests[0])
    await asyncio.sleep(0)
    assert not waiting.done()
    door.left(guests[1])
    await waiting


def test_in_the_end_all_have_to_go() -> None:
    """Busy or not."""
    door, guests = Door(3), [Guest(), Guest(1.0)]
    for guest in guests:
        door.admit(guest)
    door.clear()
    assert [guest.why for guest in guests] == ["shutdown"] * 2
    assert len(door) == 0
    assert not any(door.shown_out.values())
