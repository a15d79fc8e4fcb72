"""Secrets that are read from files, and read again when those change.

A Kubernetes Secret that is mounted as a volume changes under a running process: a symlink is swapped, so the file has
another inode. Other tools write in place, and then half a secret may be there for a moment. So a file that changed is
read once it looks the same twice in a row; what cannot be used leaves in use what was read before.
"""

import asyncio
import logging
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, Protocol, TypeVar

from sidecar.errors import BadSettings
from sidecar.kit.clock import Clock

T = TypeVar("T")

log = logging.getLogger(__name__)

SECRETS: Final = ("stripe_api_key", "webhook_secret", "local_token")
OUTCOMES: Final = ("changed", "unchanged", "refused")
"""What a file was found to hold when it was read again; with ``SECRETS``, the fixed sets of a metric's labels."""

EVERY = 2.0
"""Seconds between two looks at a file: a change is in use after at most twice that."""

LARGEST = 1 << 16
"""Bytes that a file with secrets may have."""

Signature = tuple[int, int, int, int]
"""What tells a file from what it was: device, inode, time of change in nanoseconds, size."""


class Holder(Protocol):
    """Whoever holds a secret that is in use."""

    def take(self, text: str) -> bool:
        """Use what a file's ``text`` says from now on; tell whether that is something else.

        :raises ValueError: when it cannot be used, saying why and nothing of the text.
        """
        ...


H = TypeVar("H", bound=Holder)


class Held(Generic[T]):
    """A secret that is in use. Its ``repr`` does not contain it."""

    def __init__(self, value: T, read: Callable[[str], T]) -> None:
        self._value = value
        self._read = read

    def __repr__(self) -> str:
        return "Held(***)"

    def reveal(self) -> T:
        """Return the secret as it is now."""
        return self._value

    def take(self, text: str) -> bool:
        """Use what ``text`` says; see ``Holder``."""
        former, self._value = self._value, self._read(text)
        return self._value != former


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a file could not be used, and since when; ``solved_at`` when it can be again. Unix seconds."""

    at: float
    why: str
    solved_at: float | None = None


class SecretFile:
    """A file that ``take`` is told the text of when it changed. ``secret`` is one of ``SECRETS``.

    The functions in ``then`` are called after a change. What is no regular file, such as a pipe, is read once only.
    """

    def __init__(self, secret: str, path: Path, take: Callable[[str], bool], *, clock: Clock) -> None:
        self.secret = secret
        self.path = path
        self.since = clock()
        self.problem: Problem | None = None
        self.outcomes = dict.fromkeys(OUTCOMES, 0)
        self.then: list[Callable[[], None]] = []
        self._take = take
        self._clock = clock
        self._read = self._seen = signature_of(path)
        self._reading = asyncio.Lock()

    @property
    def name(self) -> str:
        """The setting and the path, for people."""
        return f"{setting(self.secret)}: {self.path}"

    async def look(self) -> None:
        """Read the file if it is another than the one that was read, and the same as at the last look."""
        seen = await asyncio.to_thread(signature_of, self.path)
        settled, self._seen = seen == self._seen, seen
        if settled and seen != self._read:
            _ = await self.reread()

    async def reread(self) -> bool:
        """Read the file now; tell whether something else is in use since."""
        async with self._reading:  # or what was read first might be taken last
            self._read = await asyncio.to_thread(signature_of, self.path)  # first: what changes later shows later
            try:
                changed = self._take(await asyncio.to_thread(text_again, self.path))
            except ValueError as error:
                self._refused(str(error))
                return False
        self._accepted(changed=changed)
        return changed

    def _refused(self, why: str) -> None:
        self.outcomes["refused"] += 1
        if self.problem is None or self.problem.solved_at is not None or self.problem.why != why:
            self.problem = Problem(self._clock(), why)
            log.error("%s: %s; what was read before stays in use", self.name, why)

    def _accepted(self, *, changed: bool) -> None:
        self.outcomes["changed" if changed else "unchanged"] += 1
        problem, now = self.problem, self._clock()
        if problem is not None and problem.solved_at is None:
            self.problem = Problem(problem.at, problem.why, solved_at=now)
            log.info("%s: can be used again", self.name)
        if changed:
            self.since = now
            log.info("%s: has changed, and the new content is in use", self.name)
            for tell in self.then:
                tell()


class Rotation:
    """Looks after the files, every so many seconds."""

    def __init__(self, files: Sequence[SecretFile], *, every: float = EVERY) -> None:
        self.files = files
        self._every = every

    @property
    def counts(self) -> dict[tuple[str, str], int]:
        """How often which secret was read again, and with what outcome; all of both sets."""
        by_secret = {file.secret: file.outcomes for file in self.files}
        return {
            (secret, outcome): by_secret.get(secret, {}).get(outcome, 0) for secret in SECRETS for outcome in OUTCOMES
        }

    async def look(self) -> None:
        """Look at each file once."""
        for file in self.files:
            await file.look()

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await asyncio.sleep(self._every)
            await self.look()


def opened(secret: str, path: Path, hold: Callable[[str], H], *, clock: Clock) -> tuple[H, SecretFile]:
    """Read a file for the first time; return what ``hold`` made of its text, and what goes on looking at the file.

    :raises BadSettings: when there is nothing in it that can be used, naming the setting and the file.
    """
    try:
        held = hold(text_of(path))
    except ValueError as error:
        raise BadSettings([f"{setting(secret)}: {path}: {error}"]) from None
    return held, SecretFile(secret, path, held.take, clock=clock)


def setting(secret: str) -> str:
    """Return the variable that names the file."""
    return f"SIDECAR_{secret.upper()}_FILE"


def text_of(path: Path) -> str:
    """Return what is in a file. Blocks.

    :raises ValueError: when there is no text, or too much of it, saying why without path and text.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise ValueError(error.strerror or type(error).__name__) from None
    if len(content) > LARGEST:
        raise ValueError(f"has more than {LARGEST} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None


def text_again(path: Path) -> str:
    """Return what is in a file by now, as ``text_of`` does, but wait for nobody at a pipe's other end."""
    if path.exists() and not path.is_file():
        raise ValueError("is no regular file")
    return text_of(path)


def signature_of(path: Path) -> Signature | None:
    """Return what tells a file from what it was, symlinks followed; None for what is no regular file. Blocks."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size) if stat.S_ISREG(found.st_mode) else None
