"""Secrets follow their files, and stay what they were while there is nothing in them that can be used."""

import asyncio
import logging
import os
from pathlib import Path

import pytest

from sidecar.errors import BadSettings
from sidecar.rotation import LARGEST, OUTCOMES, SECRETS, Held, Problem, Rotation, SecretFile, opened
from tests.fakes import FakeClock


def read_word(text: str) -> str:
    """Return the one word in ``text``."""
    if not text.strip().isalpha():
        raise ValueError("is no word")
    return text.strip()


def write(path: Path, content: str | bytes) -> None:
    """Write in place, as an editor does."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)


class Word:
    """A secret that is a word, in a file."""

    def __init__(self, path: Path, clock: FakeClock) -> None:
        self.path = path
        self.held, self.file = opened("local_token", path, lambda text: Held(read_word(text), read_word), clock=clock)
        self.rotation = Rotation([self.file])

    async def look(self) -> str:
        """Look twice, and return the word that is in use."""
        await self.rotation.look()
        await self.rotation.look()
        return self.held.reveal()

    @property
    def outcomes(self) -> list[str]:
        """What the file was found to hold, as often as it was read again."""
        return [outcome for outcome, count in self.file.outcomes.items() for _ in range(count)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "word"
    found.write_text("old\n")
    return found


@pytest.fixture
def word(path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture) -> Word:
    caplog.set_level(logging.INFO, "sidecar")
    return Word(path, clock)


class TestTheStart:
    def test_takes_what_is_there(self, word: Word, clock: FakeClock) -> None:
        """From the start on it is in use."""
        assert word.held.reveal() == "old"
        assert (word.file.since, word.file.problem) == (clock(), None)

    @pytest.mark.parametrize(
        ("content", "why"),
        [
            (b"s3cret", "is no word"),
            (b"secret\xff", "is not UTF-8"),
            (b"s" * (LARGEST + 1), f"has more than {LARGEST} bytes"),
        ],
    )
    def test_refuses_what_cannot_be_used(self, path: Path, clock: FakeClock, content: bytes, why: str) -> None:
        """Naming the setting and the file, and nothing of what is in it."""
        path.write_bytes(content)
        with pytest.raises(BadSettings) as caught:
            Word(path, clock)
        assert caught.value.complaints == [f"SIDECAR_LOCAL_TOKEN_FILE: {path}: {why}"]
        assert caught.value.__suppress_context__

    def test_names_a_file_that_is_not_there(self, tmp_path: Path, clock: FakeClock) -> None:
        """In the system's own words."""
        with pytest.raises(BadSettings, match="No such file or directory"):
            Word(tmp_path / "none", clock)

    def test_shows_no_secret(self, word: Word) -> None:
        """In no ``repr``."""
        assert "old" not in repr(word.held) + repr(vars(word.file)) + repr(word.held.reveal)


class TestAChange:
    async def test_is_in_use_once_the_file_stays_as_it_is(
        self, word: Word, clock: FakeClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        """From the second look on that finds the same; the log has that it is, not what it is."""
        clock.advance(100)
        write(word.path, "new\n")
        await word.rotation.look()
        assert word.held.reveal() == "old"
        await word.rotation.look()
        assert word.held.reveal() == "new"
        assert (word.file.since, word.outcomes) == (clock(), ["changed"])
        assert caplog.messages == [f"SIDECAR_LOCAL_TOKEN_FILE: {word.path}: has changed, and the new content is in use"]

    async def test_is_not_read_while_it_is_being_written(self, word: Word) -> None:
        """Half a secret may look like a whole one."""
        for half in ("n", "ne", "new"):
            write(word.path, half)
            await word.rotation.look()
            assert word.held.reveal() == "old"
        assert await word.look() == "new"
        assert word.outcomes == ["changed"]

    async def test_of_a_volume_of_kubernetes_is_a_link_that_is_swapped(self, tmp_path: Path, clock: FakeClock) -> None:
        """The file is a link into ``..data``, which is a link to a directory of its own for each state."""
        swap(tmp_path, "..1", "old")
        (tmp_path / "word").symlink_to("..data/word")
        word = await asyncio.to_thread(Word, tmp_path / "word", clock)
        swap(tmp_path, "..2", "new")
        assert await word.look() == "new"
        swap(tmp_path, "..1", "old")
        assert await word.look() == "old"

    async def test_without_a_difference_is_none(self, word: Word, caplog: pytest.LogCaptureFixture) -> None:
        """A file that was written anew with the same content is read once and not spoken of."""
        since = word.file.since
        os.utime(word.path, (1, 1))
        assert await word.look() == await word.look() == "old"
        assert (word.file.since, word.outcomes, caplog.messages) == (since, ["unchanged"], [])

    async def test_is_told(self, word: Word) -> None:
        """To whoever wants to know, once it is in use; what is no change is not."""
        seen: list[str] = []
        word.file.then.append(lambda: seen.append(word.held.reveal()))
        for content in ("new", "new\n", "", "newer"):
            write(word.path, content)
            await word.look()
        assert seen == ["new", "newer"]

    async def test_need_not_be_waited_for(self, word: Word) -> None:
        """Who has reason to can have the file read at once; then it is not read again."""
        write(word.path, "new")
        assert await word.file.reread()
        assert not await word.file.reread()
        await word.look()
        assert word.held.reveal() == "new"
        assert word.outcomes == ["changed", "unchanged"]

    async def test_is_read_in_order_by_many(self, word: Word) -> None:
        """Readings do not overtake each other, so the last one's word counts."""
        write(word.path, "new")
        found = await asyncio.gather(*(word.file.reread() for _ in range(5)))
        assert sorted(found) == [False] * 4 + [True]
        assert word.held.reveal() == "new"


def swap(volume: Path, state: str, content: str) -> None:
    """Give a volume another state in one step, as the kubelet does."""
    (volume / state).mkdir(exist_ok=True)
    (volume / state / "word").write_text(content)
    (volume / "..tmp").symlink_to(state)
    (volume / "..tmp").rename(volume / "..data")


class TestAProblem:
    @pytest.mark.parametrize(
        ("content", "why"),
        [
            (None, "No such file or directory"),
            (b"", "is no word"),
            (b"s3cret", "is no word"),
            (b"\xff", "is not UTF-8"),
        ],
    )
    async def test_leaves_the_old_in_use(
        self, word: Word, clock: FakeClock, caplog: pytest.LogCaptureFixture, content: bytes | None, why: str
    ) -> None:
        """It is said once, without what is in the file; that it is over is said too."""
        since = word.file.since
        clock.advance(10)
        replace(word.path, content)
        for _ in range(3):
            assert await word.look() == "old"
        problem = f"SIDECAR_LOCAL_TOKEN_FILE: {word.path}: {why}; what was read before stays in use"
        assert caplog.messages == [problem]
        assert caplog.records[0].levelname == "ERROR"
        assert word.file.problem == Problem(clock(), why)
        clock.advance(10)
        write(word.path, "old")
        assert await word.look() == "old"
        assert caplog.messages[1:] == [f"SIDECAR_LOCAL_TOKEN_FILE: {word.path}: can be used again"]
        assert word.file.problem == Problem(clock() - 10, why, solved_at=clock())
        assert (word.file.since, word.outcomes) == (since, ["unchanged", "refused"])

    async def test_that_is_another_is_said_too(self, word: Word, caplog: pytest.LogCaptureFixture) -> None:
        """So is the same one when it comes back."""
        for content in ("1", "2", None, "new", "1"):
            replace(word.path, None if content is None else content.encode())
            await word.look()
        said = [message.partition(f"{word.path}: ")[2].partition(";")[0] for message in caplog.messages]
        again = ["can be used again", "has changed, and the new content is in use"]
        assert said == ["is no word", "No such file or directory", *again, "is no word"]
        assert word.outcomes == ["changed", "refused", "refused", "refused", "refused"]

    async def test_is_a_pipe_that_nobody_writes_to(self, word: Word) -> None:
        """It is not waited for."""
        await asyncio.to_thread(word.path.unlink)
        os.mkfifo(word.path)
        assert await word.look() == "old"
        assert word.file.problem is not None
        assert word.file.problem.why == "is no regular file"


def replace(path: Path, content: bytes | None) -> None:
    """Remove the file, or write it."""
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)


class TestLooking:
    async def test_goes_on_for_ever(self, word: Word) -> None:
        """One change after another is found."""
        async with asyncio.timeout(15), asyncio.TaskGroup() as group:
            loop = group.create_task(Rotation([word.file], every=0.001).run())
            for content in ("new", "newer"):
                write(word.path, content)
                while word.held.reveal() != content:
                    await asyncio.sleep(0.001)
            loop.cancel()
        assert word.outcomes == ["changed", "changed"]

    async def test_counts_of_all_that_could_be(self, word: Word) -> None:
        """The fixed sets of a metric's labels, whatever there is."""
        write(word.path, "new")
        await word.look()
        counts = word.rotation.counts
        assert list(counts) == [(secret, outcome) for secret in SECRETS for outcome in OUTCOMES]
        assert {key for key, count in counts.items() if count} == {("local_token", "changed")}

    async def test_touches_nothing_that_did_not_change(self, word: Word) -> None:
        """Not even by reading it."""
        for _ in range(3):
            await word.look()
        assert word.outcomes == []


def test_a_file_is_named_for_people(word: Word) -> None:
    """By the setting and the path."""
    assert isinstance(word.file, SecretFile)
    assert word.file.name == f"SIDECAR_LOCAL_TOKEN_FILE: {word.path}"
