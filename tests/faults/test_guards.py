"""A guard that is removed is missed: the case that rests on it fails."""

import re
from collections.abc import Awaitable, Callable, Iterator

import pytest

from sidecar.demo import Fault
from tests.faults.processes import Scene
from tests.faults.test_kill import killed_after_news, memory, sqlite, with_store
from tests.faults.test_outages import broken, down_for_long, network_fails
from tests.faults.test_throttling import storm


async def torn_pages(scene: Scene, without: str) -> None:
    await network_fails(scene, broken(Fault.TORN, after=1), without=without)


async def long_outage(scene: Scene, without: str) -> None:
    await down_for_long(scene, without=without)


async def throttling(scene: Scene, without: str) -> None:
    await storm(scene, without=without)


async def news(scene: Scene, without: str) -> None:
    await killed_after_news(scene, memory(scene.directory), without=without)


async def news_kept(scene: Scene, without: str) -> None:
    await killed_after_news(scene, sqlite(scene.directory), without=without)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("guard", "case", "missed"),
    [
        ("a-page-is-a-list", torn_pages, "not true in the last"),
        ("serving-renews-the-age", long_outage, "nothing was learnt, and yet it is newer|not true in the last"),
        ("an-old-answer-is-better-than-none", long_outage, "older than stale_for"),
        ("the-budget-never-ends", throttling, "more requests than the budget has"),
        ("news-marks-nothing", news, "news was lost"),
        pytest.param("the-store-is-told-of-no-news", news_kept, "news was lost", marks=with_store),
    ],
)
async def test_a_guard_that_is_removed_is_missed(
    scene: Scene, guard: str, case: Callable[[Scene, str], Awaitable[None]], missed: str
) -> None:
    """Lists are whole, ages true, old answers end, the budget bounds, news marks: each without its guard is noticed."""
    with pytest.raises((AssertionError, ExceptionGroup)) as caught:
        await case(scene, guard)
    said = [str(error) for error in leaves(caught.value)]
    assert any(re.search(missed, text) for text in said), said


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, or those in a group."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error
