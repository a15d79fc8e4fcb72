"""The key is tried at the start: once, when there is budget to spare, until there is an answer."""

import asyncio
from collections.abc import Iterable

import pytest

from sidecar.errors import (
    Broken,
    KeyRejected,
    PermissionMissing,
    RequestRejected,
    Throttled,
    Unreachable,
    UpstreamError,
)
from sidecar.stripe.health import Health
from sidecar.stripe.keycheck import LONGEST_PAUSE, KeyCheck
from tests.fakes import FakeClock
from tests.kit.virtual import play


class Story:
    """A check under virtual time: ``answers`` are what Stripe answers one after another, None for a good one."""

    def __init__(self, clock: FakeClock, answers: Iterable[UpstreamError | None], *, spare: int = 1000) -> None:
        self.health = Health(clock)
        self.asked_at: list[float] = []
        self._answers = iter(answers)
        self._spare = spare
        self._clock = clock
        self._began = clock()
        self.check = KeyCheck(self._probe, self._take_spare, self.health)

    def _take_spare(self) -> bool:
        self._spare -= 1
        return self._spare >= 0

    async def _probe(self) -> None:
        self.asked_at.append(self._clock() - self._began)
        error = next(self._answers)
        if error is None:
            self.health.succeeded()
        else:
            self.health.failed(error)
            raise error

    def until(self, seconds: float, *then: float) -> None:
        """Let the check run for so long, with another key after each time in ``then``."""

        async def tell() -> None:
            loop = asyncio.get_running_loop().create_task(self.check.run())
            for at in then:
                await asyncio.sleep(at - (self._clock() - self._began))
                self.check.again()
            await asyncio.sleep(seconds - (self._clock() - self._began))
            assert not loop.done(), "a loop must not end"
            loop.cancel()

        play(self._clock, tell())


def test_one_answer_is_enough(clock: FakeClock) -> None:
    """Stripe is asked once, at once, and not again."""
    story = Story(clock, [None])
    story.until(86400)
    assert story.asked_at == [0.0]
    assert story.health.may_read is True


@pytest.mark.parametrize("answer", [KeyRejected("no"), PermissionMissing("no"), RequestRejected("odd")])
def test_a_no_is_an_answer(clock: FakeClock, answer: UpstreamError) -> None:
    """The operator has to do something; asking again would bring the same."""
    story = Story(clock, [answer])
    story.until(86400)
    assert story.asked_at == [0.0]
    assert story.health.state == answer.code


def test_no_answer_is_asked_for_again_more_and_more_slowly(clock: FakeClock) -> None:
    """After 1 s, 2 s, 4 s, and in the end every 5 minutes, as long as it takes."""
    errors = [Unreachable("refused"), Broken("half"), Throttled("429")]
    story = Story(clock, [*errors * 4, RequestRejected("conflict", retry=True), None])
    story.until(86400)
    pauses = [later - earlier for earlier, later in zip(story.asked_at, story.asked_at[1:], strict=False)]
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, *[LONGEST_PAUSE] * 4]
    assert story.health.may_read is True


def test_callers_come_first(clock: FakeClock) -> None:
    """Without a request to spare nothing is asked; what is left over later will do."""
    story = Story(clock, [None], spare=0)
    story.until(3600)
    assert story.asked_at == []


@pytest.mark.parametrize("allowed", [True, False])
def test_what_a_real_read_has_shown_is_not_asked(clock: FakeClock, *, allowed: bool) -> None:
    """Callers' questions tell as much."""
    story = Story(clock, [Unreachable("refused"), None])

    async def tell() -> None:
        loop = asyncio.get_running_loop().create_task(story.check.run())
        await asyncio.sleep(0.5)
        if allowed:
            story.health.succeeded()
        else:
            story.health.failed(PermissionMissing("no"))
        await asyncio.sleep(3600)
        loop.cancel()

    play(clock, tell())
    assert story.asked_at == [0.0]


def test_another_key_is_tried_anew(clock: FakeClock) -> None:
    """What was known of the old one says nothing of it."""
    story = Story(clock, [KeyRejected("no"), None, Unreachable("refused"), PermissionMissing("no")])
    story.until(3600, 100, 200)
    assert story.asked_at == [0.0, 100.0, 200.0, 201.0]
    assert story.health.may_read is False


def test_a_key_that_was_rotated_meanwhile_is_tried_soon(clock: FakeClock) -> None:
    """The rejected one was the old one; reading its file has shown that there is another."""
    story = Story(clock, [KeyRejected("no", retry=True), None])
    story.until(3600)
    assert story.asked_at == [0.0, 1.0]
