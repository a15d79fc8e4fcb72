"""A file on the local disk: told at once, written a moment later, lost and found again."""

import asyncio
import logging
import os
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from sidecar.errors import StoreError
from sidecar.model import Customer, Dirty, Span
from sidecar.stores import sqlite
from sidecar.stores.sqlite import Sqlite
from tests.fakes import ShiftedClock
from tests.stores.keeping import ADA, BOB, database, listed, store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lists.db"


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that was lost is tried again at once, not after ten seconds."""
    monkeypatch.setattr(sqlite, "AGAIN", 0.02)


@pytest.fixture
def clock() -> ShiftedClock:
    return ShiftedClock()


async def found_again(kept: Sqlite) -> None:
    """Return once the store is of use again."""
    while kept.trouble is not None:
        await asyncio.sleep(0.01)


def failing(kept: Sqlite, name: str, error: Exception | None = None) -> Callable[[], None]:
    """Have a method of the file fail; return what mends it."""
    original = getattr(kept.database, name)

    def fail(*_: Any) -> None:
        raise error or StoreError("full", "no space is left")

    setattr(kept.database, name, fail)
    return lambda: setattr(kept.database, name, original)


def held_up(kept: Sqlite, name: str) -> tuple[threading.Event, threading.Event]:
    """Have a method of the file wait; return what lets it go on, and what is set once it waits."""
    original, gate, waits = getattr(kept.database, name), threading.Event(), threading.Event()

    def slow(*values: Any) -> Any:
        waits.set()
        gate.wait(10)
        return original(*values)

    setattr(kept.database, name, slow)
    return gate, waits


def counting(kept: Sqlite, name: str, sizes: list[int], size: Callable[..., int]) -> None:
    """Have the sizes noted of what a method of the file is given."""
    original = getattr(kept.database, name)

    def counted(*values: Any) -> Any:
        sizes.append(size(*values))
        return original(*values)

    setattr(kept.database, name, counted)


class TestKeeping:
    async def test_a_list_is_known_at_once_and_to_the_next_process(self, path: Path, clock: ShiftedClock) -> None:
        """Before it is written it comes from what was told, afterwards from the file."""
        async with store(path, clock) as kept:
            kept.write(listed(ADA, "a"))
            assert kept.pending == 1
            assert await kept.read(ADA) == listed(ADA, "a")
            await kept.flush()
            assert (kept.pending, kept.written) == (0, 1)
            assert await kept.read(ADA) == listed(ADA, "a")
            assert await kept.read(BOB) is None
            assert kept.reads == {"found": 2, "missing": 1, "unreadable": 0}
        async with store(path, clock) as kept:
            assert await kept.read(ADA) == listed(ADA, "a")

    async def test_closing_writes_what_is_left(self, path: Path, clock: ShiftedClock) -> None:
        """Nobody has to flush before the end."""
        async with store(path, clock) as kept:
            kept.write(listed(ADA, "a"))
        async with store(path, clock) as kept:
            assert await kept.read(ADA) == listed(ADA, "a")

    async def test_changes_are_written_together(self, path: Path, clock: ShiftedClock) -> None:
        """A thousand of them in one transaction."""
        async with store(path, clock) as kept:
            batches: list[int] = []
            counting(kept, "apply", batches, lambda batch, _: len(batch.lists))
            for number in range(1000):
                kept.write(listed(Customer(f"cus_{number}"), "a"))
            await kept.flush()
            assert batches == [1000]

    async def test_reads_of_one_turn_go_together(self, path: Path, clock: ShiftedClock) -> None:
        """A batch of a thousand questions is one job for the thread."""
        async with store(path, clock) as kept:
            jobs: list[int] = []
            counting(kept, "read", jobs, len)
            await asyncio.gather(*(kept.read(Customer(f"cus_{number}")) for number in range(1000)), kept.read(ADA))
            assert jobs == [1001]

    async def test_news_is_seen_before_it_is_written_and_after(self, path: Path, clock: ShiftedClock) -> None:
        """On a list that was just told, on one in the file; the next list clears it, a list from before does not come."""
        spans, heard_at = (Span(0.0, 1e9),), clock()
        async with store(path, clock) as kept:
            kept.write(listed(ADA, "a"))
            kept.mark(ADA, heard_at, spans)
            dirty = listed(ADA, "a", dirty=Dirty(heard_at, listed().taken_at))
            assert await kept.read(ADA) == dirty
            await kept.flush()
            assert await kept.read(ADA) == dirty
            kept.write(listed(BOB, "b"))
            await kept.flush()
            kept.mark(BOB, heard_at, spans)
            assert await kept.read(BOB) == listed(BOB, "b", dirty=Dirty(heard_at, listed().taken_at))
            kept.write(listed(BOB, "c"))
            assert await kept.read(BOB) == listed(BOB, "c")
            await kept.flush()
            assert await kept.read(BOB) == listed(BOB, "c")

    async def test_a_list_that_is_told_while_it_is_read_wins(self, path: Path, clock: ShiftedClock) -> None:
        """Even when it is written, and so no longer pending, before the reader goes on."""
        async with store(path, clock) as kept:
            kept.write(listed(ADA, "old"))
            await kept.flush()
            reading = asyncio.get_running_loop().create_task(kept.read(ADA))
            await asyncio.sleep(0)
            kept.write(listed(ADA, "new"))
            await kept.flush()
            assert await reading == listed(ADA, "new")

    async def test_a_reader_who_leaves_takes_nobody_along(self, path: Path, clock: ShiftedClock) -> None:
        """Others wait for the same row."""
        async with store(path, clock) as kept:
            kept.write(listed(ADA, "a"))
            await kept.flush()
            first, second = (asyncio.get_running_loop().create_task(kept.read(ADA)) for _ in range(2))
            await asyncio.sleep(0)
            first.cancel()
            assert await second == listed(ADA, "a")

    async def test_spans_outlive_the_process(self, path: Path, clock: ShiftedClock) -> None:
        """As they were told: where a span began, and how far it has come."""
        async with store(path, clock) as kept:
            kept.begin(None, 10.0)
            kept.advance(None, 20.0)
            kept.begin(None, 30.0)
            kept.advance(None, 40.0)
            expected = {None: (Span(10.0, 20.0), Span(30.0, 40.0))}
            assert kept.spans == expected
        async with store(path, clock) as kept:
            assert kept.spans == expected

    async def test_two_marks_are_one_to_the_list(self, path: Path, clock: ShiftedClock) -> None:
        """It is true up to where it was before the first, whatever the watermark does between the two."""
        taken_at = listed().taken_at
        async with store(path, clock) as kept:
            kept.write(listed(ADA, "a"))
            await kept.flush()
            kept.mark(ADA, clock(), (Span(0.0, taken_at + 5),))
            heard_at = clock()
            kept.mark(ADA, heard_at, (Span(0.0, taken_at + 500),))
            await kept.flush()
            assert await kept.read(ADA) == listed(ADA, "a", dirty=Dirty(heard_at, taken_at + 5))

    async def test_others_news_does_not_hold_up_a_reader(self, path: Path, clock: ShiftedClock) -> None:
        """However often something is written: the file is read once, unless it is this customer's row."""
        async with store(path, clock) as kept:
            kept.write(listed(ADA, "a"))
            await kept.flush()
            reads: list[int] = []
            counting(kept, "read", reads, len)
            reading = asyncio.get_running_loop().create_task(kept.read(ADA))
            while not reading.done():
                kept.mark(BOB, clock(), ())
                await kept.flush()
            assert await reading == listed(ADA, "a")
            assert reads == [1]

    async def test_use_is_noted(self, path: Path, clock: ShiftedClock) -> None:
        """Who comes back after more than an hour has been used now."""
        async with store(path, clock) as kept:
            kept.write(listed(ADA, "a"))
            await kept.flush()
            _ = await kept.read(ADA)
            assert kept.pending == 0
            clock.advance(4000)
            _ = await kept.read(ADA)
            assert kept.pending == 1
            await kept.flush()
            _ = await kept.read(ADA)
            assert kept.pending == 0, "once in an hour"

    async def test_a_damaged_row_is_said(
        self, path: Path, clock: ShiftedClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It is counted, and as good as none; the line names nobody."""
        async with store(path, clock) as kept:
            kept.write(listed(ADA, "a"))
            await kept.flush()
            kept.database._db.execute("UPDATE lists SET body = x'01'")
            assert await kept.read(ADA) is None
            assert kept.reads == {"found": 0, "missing": 0, "unreadable": 1}
            assert "cannot be used" in caplog.text
            assert "cus_ada" not in caplog.text

    async def test_a_list_of_the_future_is_none(self, path: Path, clock: ShiftedClock) -> None:
        """By a clock that was set back by more than a little, its age cannot be told."""
        async with store(path, clock) as kept:
            kept.write(listed(ADA, "a", taken_at=clock() + 60))
            assert await kept.read(ADA) is None


def spoil(path: Path) -> None:
    """Write noise over all but the beginning of a file."""
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(os.urandom(path.stat().st_size - 8192))


class TestTrouble:
    async def test_answers_go_on_without_it(
        self, path: Path, clock: ShiftedClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Nobody waits for a store in trouble; it is said once why, and again when it is over."""
        caplog.set_level(logging.INFO)
        async with store(path, clock) as kept:
            mend, mend_too = failing(kept, "apply"), failing(kept, "reopen")
            kept.write(listed(ADA, "a"))
            await kept.flush()
            assert kept.trouble is not None
            assert kept.trouble.code == "full"
            assert not kept.is_open
            kept.write(listed(BOB, "b"))
            kept.mark(ADA, 1.0, ())
            kept.advance(None, 1.0)
            await kept.flush()
            assert await kept.read(BOB) is None
            await asyncio.sleep(0.1)
            assert kept.losses["full"] == 1, "said once, however often it is tried"
            mend()
            mend_too()
            await found_again(kept)
        lines = [record.getMessage() for record in caplog.records]
        assert len(lines) == 2
        assert "of no use (full): no space is left; answers go on from memory" in lines[0]
        assert "of use again" in lines[1]

    async def test_what_memory_holds_is_told_to_a_file_that_comes_back(self, path: Path, clock: ShiftedClock) -> None:
        """The rest of it may have missed news, and is dirty."""
        async with store(path, clock) as kept:
            kept.everything = lambda: [listed(BOB, "b")]
            kept.write(listed(ADA, "a"))
            kept.begin(None, 5.0)
            await kept.flush()
            mend = failing(kept, "apply")
            kept.write(listed(BOB, "x"))
            await kept.flush()
            mend()
            await found_again(kept)
            back_at = kept.spans[None][-1].since
            assert await kept.read(BOB) == listed(BOB, "b")
            assert await kept.read(ADA) == listed(ADA, "a", dirty=Dirty(back_at, listed().taken_at))
            kept.advance("acct_1", 7.0)
            assert kept.spans["acct_1"][0].since >= back_at, "where its feed began the file did not hear"

    async def test_what_is_told_while_it_comes_back_is_kept(self, path: Path, clock: ShiftedClock) -> None:
        """Also where a span begins and how far it has come; but none vouches for what was missed."""
        async with store(path, clock) as kept:
            lost_at = clock()
            kept.begin(None, lost_at - 1000)
            kept.write(listed(ADA, "a", taken_at=lost_at - 900))
            kept.advance(None, lost_at - 100)
            await kept.flush()
            gate, is_opening = held_up(kept, "reopen")
            mend = failing(kept, "apply")
            kept.write(listed(BOB, "x"))
            await kept.flush()
            mend()
            while not is_opening.is_set():
                await asyncio.sleep(0.01)
            kept.advance(None, clock())
            kept.begin(None, clock() - 30)
            kept.mark(BOB, clock(), ())
            gate.set()
            await found_again(kept)
            kept.advance(None, clock() + 1000)
            await kept.flush()
            found = await kept.read(ADA)
            assert found is not None
            assert found.dirty is not None
            assert found.dirty.verified_at == lost_at - 100
            assert [span.since >= lost_at for span in kept.spans[None]] == [False, True, True]

    async def test_a_mark_that_is_lost_with_the_store_makes_no_clean_list(
        self, path: Path, clock: ShiftedClock
    ) -> None:
        """Who was reading when another reader's trouble lost it is told nothing."""
        async with store(path, clock) as kept:
            kept.write(listed(ADA, "a"))
            await kept.flush()
            read, gate = kept.database.read, threading.Event()

            def fail_for_bob(customers: Sequence[Customer]) -> Any:
                if BOB in customers:
                    gate.wait(10)
                    raise StoreError("failed", "an I/O error")
                return read(customers)

            kept.database.read = fail_for_bob  # type: ignore[method-assign]
            bob = asyncio.get_running_loop().create_task(kept.read(BOB))
            await asyncio.sleep(0.01)
            ada = asyncio.get_running_loop().create_task(kept.read(ADA))
            await asyncio.sleep(0.01)
            kept.mark(ADA, clock(), ())
            gate.set()
            assert [await bob, await ada] == [None, None]

    async def test_all_of_memory_is_written_a_part_at_a_time(
        self, path: Path, clock: ShiftedClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No transaction is larger than a disk may take in its time; each list is told as it is by then."""
        monkeypatch.setattr(sqlite, "AT_ONCE", 10)
        async with store(path, clock) as kept:
            sizes: list[int] = []
            mend = failing(kept, "apply")
            kept.write(listed(ADA, "a"))
            await kept.flush()
            mend()
            counting(kept, "apply", sizes, lambda batch, _: len(batch.lists))
            kept.everything = lambda: (listed(Customer(f"cus_{number}"), "a") for number in range(95))
            await found_again(kept)
            while sum(sizes) < 95:
                await asyncio.sleep(0.01)
            assert max(sizes) == 10

    async def test_a_damaged_file_is_put_aside_and_begun_anew(self, path: Path, clock: ShiftedClock) -> None:
        """At the start there is no waiting for it."""
        await asyncio.to_thread(path.write_bytes, b"no database, and long enough to be looked at")
        async with store(path, clock) as kept:
            assert kept.trouble is None
            assert kept.losses["corrupt"] == 1
            kept.write(listed(ADA, "a"))
        assert sorted(one.name for one in path.parent.iterdir()) == ["lists.db", "lists.db.set-aside"]
        async with store(path, clock) as kept:
            assert await kept.read(ADA) == listed(ADA, "a")

    async def test_a_file_damaged_under_us_is_noticed(self, path: Path, clock: ShiftedClock) -> None:
        """The next reading that meets the damage puts it aside; what memory holds is written anew."""
        async with store(path, clock) as kept:
            crowd = [Customer(f"cus_{number}") for number in range(300)]
            for customer in crowd:
                kept.write(listed(customer, "a", "b"))
        await asyncio.to_thread(spoil, path)
        async with store(path, clock) as kept:
            for customer in crowd:
                _ = await kept.read(customer)
            await found_again(kept)
            assert kept.losses["corrupt"] == 1
            kept.write(listed(ADA, "a"))
            await kept.flush()
            assert await kept.read(ADA) == listed(ADA, "a")

    async def test_a_file_deleted_under_us_is_made_again(self, path: Path, clock: ShiftedClock) -> None:
        """With what memory holds."""
        async with store(path, clock) as kept:
            kept.everything = lambda: [listed(BOB, "b")]
            kept.write(listed(ADA, "a"))
            await kept.flush()
            for one in path.parent.iterdir():
                one.unlink()
            kept.write(listed(ADA, "a"))
            await kept.flush()
            assert kept.losses["gone"] == 1
            await found_again(kept)
            await kept.flush()
        async with store(path, clock) as kept:
            assert await kept.read(BOB) == listed(BOB, "b")

    async def test_a_folder_that_comes_late_is_used(self, tmp_path: Path, clock: ShiftedClock) -> None:
        """A volume that was not mounted at the start does not stop anything."""
        path = tmp_path / "volume" / "lists.db"
        async with store(path, clock) as kept:
            assert kept.losses["gone"] == 1
            path.parent.mkdir()
            await found_again(kept)
            kept.write(listed(ADA, "a"))
            await kept.flush()
            assert await kept.read(ADA) == listed(ADA, "a")
        shutil.rmtree(path.parent)

    async def test_a_file_that_another_process_has_is_waited_for(self, path: Path, clock: ShiftedClock) -> None:
        """Two processes never write one file; when the other has gone, it is ours."""
        other = database(path)
        await asyncio.to_thread(other.open, clock())
        async with store(path, clock) as kept:
            assert kept.losses["in_use"] == 1
            await asyncio.to_thread(other.close)
            await found_again(kept)

    async def test_a_disk_that_hangs_is_given_up(
        self, path: Path, clock: ShiftedClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Those who wait for it are released."""
        async with store(path, clock) as kept:
            held_up = asyncio.Event()
            loop = asyncio.get_running_loop()
            monkeypatch.setattr(sqlite, "PATIENCE", 0.05)
            done: list[bool] = []

            def hang(*_: Any) -> None:
                asyncio.run_coroutine_threadsafe(held_up.wait(), loop).result()
                done.append(True)

            mend = failing(kept, "apply")
            kept.database.apply = hang  # type: ignore[method-assign,assignment]
            kept.write(listed(ADA, "a"))
            await kept.flush()
            assert kept.losses["too_slow"] == 1
            held_up.set()
            monkeypatch.setattr(sqlite, "PATIENCE", 5.0)
            mend()
            await found_again(kept)
            assert done

    async def test_a_defect_is_trouble_too(
        self, path: Path, clock: ShiftedClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It has its traceback in the log, and what was told is not taken for written."""
        async with store(path, clock) as kept:
            mend = failing(kept, "apply", ZeroDivisionError())
            kept.write(listed(ADA, "a"))
            await kept.flush()
            assert kept.losses["failed"] == 1
            assert "ZeroDivisionError" in caplog.text
            mend()
            await found_again(kept)

    async def test_readers_are_told_nothing_when_the_file_fails(self, path: Path, clock: ShiftedClock) -> None:
        """They go on to Stripe."""
        async with store(path, clock) as kept:
            mend = failing(kept, "read", StoreError("corrupt", "it is damaged"))
            assert set(await asyncio.gather(kept.read(ADA), kept.read(BOB))) == {None}
            mend()
            await found_again(kept)
