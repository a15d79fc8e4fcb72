"""What a hit passes through, function by function. This pins what it costs: who adds a call has to add it here."""

import asyncio
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from sidecar.api.connections import Handler, Patience
from sidecar.api.front import Front
from sidecar.kit.door import Door
from tests.api.test_shortcuts import BATCH, CHECK, LIST, Fast
from tests.api.wires import Wire
from tests.fakes import FakeClock

REPEATED = """
Front.data_received
Shortcuts.answer
FakeClock.__call__
Wire.write
"""
"""One look-up, one look at the clock, one write; and ``loop.time``, which is written in C where it counts."""

FIRST = """
Front.data_received
Shortcuts.answer
Shortcuts._find
Shortcuts._told
Checks.hit_one
Checker.hit
FakeClock.__call__
Checker.sure
Cache.get
Tally.add
Shortcuts._made
Tally.bucket
Heads.at
Shortcuts._keep
Wire.write
"""

FIRST_LIST = """
Front.data_received
Shortcuts.answer
Shortcuts._find
Shortcuts._told
Checks.hit_all
Checker.look
FakeClock.__call__
Checker.sure
Cache.get
Tally.add
etag
Snapshot.entitlements
Snapshot.ids
entitlements
Snapshot.entitlements
Snapshot.ids
who
trust
rounded_up
moment
Checks._hit
parted
Shortcuts._made
Tally.bucket
Heads.at
Shortcuts._keep
Wire.write
"""

A_BATCH = """
Front.data_received
Shortcuts.answer
Shortcuts._find
Shortcuts._find_posted
Shortcuts._told
Batches.hit
read_batch
Sheet.__init__
Checker.now
FakeClock.__call__
Checker.sure
Cache.get
Sheet.is_whole
Sheet.texts
Sheet._parts
Words.trust
rounded_up
Words.verdicts
Verdicts.__init__
Verdicts.__missing__
Verdicts.__missing__
joined
Sheet.count
Checker.count
Tally.add_all
as_results
Shortcuts._made
Tally.bucket
Heads.at
Wire.write
"""
"""However many questions there are about one customer: what was said of their keys before is remembered."""

ROOT = str(Path(__file__).parents[2])


def calls(do: Callable[[], object]) -> list[str]:
    """Return our functions that are called, in order; comprehensions, which newer Pythons do not call, left out."""
    found: list[str] = []

    def note(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        is_ours = code.co_filename.startswith(ROOT) and "site-packages" not in code.co_filename
        if event == "call" and is_ours and not code.co_name.startswith("<"):
            found.append(code.co_qualname)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        do()
    finally:
        sys.setprofile(before)
    return found


@pytest.mark.parametrize(
    ("request_", "before", "expected"),
    [
        (CHECK, CHECK, REPEATED),
        (LIST, LIST, REPEATED),
        (CHECK, CHECK.replace(b"/pro", b"/max"), FIRST),
        (LIST, CHECK, FIRST_LIST),
        (BATCH, BATCH, A_BATCH),
    ],
    ids=["a check again", "a list again", "a first check", "a first list", "a batch"],
)
async def test_a_hit_passes_through_these_functions(
    clock: FakeClock, request_: bytes, before: bytes, expected: str
) -> None:
    """From the bytes that were received to those that are sent; the fields were read, and the head was made, before."""
    fast, loop = Fast(clock), asyncio.get_running_loop()
    fast.house.remember(10.1, "pro")
    front = Front(partial(no_handler, loop), fast.shortcuts, Door(1), Patience(), loop)
    wire = Wire(front, loop)
    front.connection_made(wire)
    wire.hear(before)
    found = calls(partial(front.data_received, request_))
    assert found == expected.split()
    assert wire.sent.count(b"HTTP/1.1 200 OK") == 2
    wire.abort()


def no_handler(_: asyncio.AbstractEventLoop) -> Handler:
    raise AssertionError("aiohttp is not needed")
