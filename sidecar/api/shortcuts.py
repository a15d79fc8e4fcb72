"""Requests that are answered at once, as text: no object of aiohttp's is made for them.

A surface registers a ``Shortcut``, or with a body what is ``Posted``, for what it can answer out of memory. Whatever is
not surely simple, allowed and in memory gets no answer here, and is then asked of aiohttp's handlers, as if nothing had
been: so a shortcut never refuses, and never waits.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from math import ceil
from typing import Final, NamedTuple, Self, TypeVar

from sidecar.api.guards import Gate
from sidecar.api.questions import account_id
from sidecar.api.request_ids import ACCEPTABLE, HEADER
from sidecar.core.wishes import NO_WISHES, Wishes, wishes
from sidecar.errors import SidecarError
from sidecar.kit.clock import Clock
from sidecar.kit.request_id import request_id
from sidecar.kit.tally import Count, Tally
from sidecar.wire import END, LENGTH, LONGEST, Heads, read_fields

MOST_SAID = 256
"""Blocks of header fields that are remembered: a client sends the same one with all its requests."""

ROOM = 4 << 20
"""Bytes that the answers may take which are kept to be repeated, each for a second; most take about 1 KiB, a list more."""

PER_ANSWER = 500
"""Bytes that an answer takes which is kept, besides itself and the request."""

ENOUGH = 64 << 10
"""Bytes of answers that are written at once, as many as a transport takes before it asks to wait."""

LONG_WAY = frozenset({"content-length", "content-encoding", "stripe-context", "if-none-match"})
"""Fields that other parts than this one understand."""

LENGTH_FIELD = re.compile(rf"\r\ncontent-length: ?({LENGTH.pattern})(?=\r\n)", re.IGNORECASE | re.ASCII)
"""The first field that says how long the body is. What is left without it must not say so again."""


class Said(NamedTuple):
    """What a block of header fields says to us: which account, how old an answer, what the request is called."""

    account: str | None = None
    wishes: Wishes = NO_WISHES
    request_id: str | None = None
    is_nothing: bool = False


NOTHING = Said(is_nothing=True)


UNTOLD = Count()
"""Counts what is counted elsewhere."""

DIGITS: Final = tuple(b"%03d" % number for number in range(1000))
NO_DIGITS: Final = (b"",) * 1000


class Lasting(NamedTuple):
    """An answer that stays as it is up to the age ``oldest``, but for that age, while memory stays as it is.

    The body is ``before``, the age in seconds, ``after``; ``before`` alone when ``after`` is None. ``heads`` are the heads
    of such answers, ``fields`` lines that this one has besides. Ages are seconds, ``as_of`` is Unix seconds. ``told`` is
    counted up for each repetition.
    """

    heads: Heads
    as_of: float
    age: float
    oldest: float
    before: bytes
    after: bytes | None = None
    fields: str = ""
    told: Count = UNTOLD


Asked = TypeVar("Asked")

Answer = Callable[[Asked, Said], Lasting | None]
"""Makes an answer of what is asked and of what is said with it, out of memory; None when there is none."""


class Shortcut(NamedTuple):
    """GET requests whose target is like ``pattern``, a regular expression.

    ``asked`` is counted up for each, as it is when aiohttp's route for the same answers.
    """

    pattern: str
    asked: Count
    answer: Answer[re.Match[str]]


class Posted(NamedTuple):
    """POST requests for just this ``target``, answered by their body; ``asked`` is counted up for each."""

    target: str
    asked: Count
    answer: Answer[bytes]


Ready = tuple[float, float, bytes, Sequence[bytes], bytes, int, int, Count, Count]
"""The bytes of an answer, but for three digits of its age, and how its repetitions are counted.

That is: ``as_of``; the age in seconds up to which it is good; what is before the digits, all that they can be, what is
after; how many thousandths the age has more than the digits say; its bucket; ``told`` and ``asked``. No named tuple:
those take ten times as long to make.
"""


class Shortcuts:
    """All shortcuts of a listener, behind the same ``gate`` as its other requests, and counted with them.

    The very same request has the very same answer for the rest of a second, but for the thousandths of its age, unless
    memory changes. So what was answered is kept until then, and such a request is looked up, not read.
    """

    def __init__(self, shortcuts: Iterable[Shortcut | Posted], gate: Gate, ages: Tally, *, clock: Clock) -> None:
        self._shortcuts: list[tuple[Callable[[str], re.Match[str] | None], Answer[re.Match[str]], Count]] = []
        self._posted: dict[str, tuple[Answer[bytes], Count]] = {}
        for shortcut in shortcuts:
            if isinstance(shortcut, Posted):
                self._posted[f"POST {shortcut.target} HTTP/1.1"] = shortcut.answer, shortcut.asked
            else:
                matching = re.compile(f"GET {shortcut.pattern} HTTP/1\\.1\r\n").match
                self._shortcuts.append((matching, shortcut.answer, shortcut.asked))
        self._gate = gate
        self._ages = ages
        self._clock = clock
        self._ready: dict[bytes, Ready] = {}
        self._room = ROOM
        self._said: dict[str, Said] = {}

    @classmethod
    def none(cls) -> Self:
        """Return those of a listener that has none."""
        return cls((), Gate(()), Tally(()), clock=float)

    def forget(self) -> None:
        """Answer nothing as before: something else is in memory."""
        self._ready.clear()
        self._room = ROOM

    def distrust(self) -> None:
        """Read all fields again: the token is another one."""
        self._said.clear()
        self.forget()

    def answer(self, data: bytes) -> bytes | None:
        """Return the answer to ``data`` when that is exactly one request, and one that has its answer here."""
        ready = self._ready.get(data) if len(data) < LONGEST else None
        if ready is not None:
            as_of, oldest, before, digits, after, thousandths, bucket, told, asked = ready
            age = self._clock() - as_of
            if age <= oldest:
                told.n += 1
                asked.n += 1
                ages = self._ages
                ages.counts[bucket] += 1
                ages.sum += age
                return before + digits[ceil(age * 1000) - thousandths] + after
        return self._find(data)

    def answers(self, data: bytes) -> tuple[bytes, int]:
        """Return the answers to the requests at the start of ``data``, and of how many bytes those are.

        They end with the first that has none here, and when there is much to be read already: there may be more behind
        what is asked than the connection takes at once. One request alone is for ``answer``.
        """
        found: list[bytes] = []
        size, at = 0, 0
        while size < ENOUGH and len(END) <= (end := data.find(b"\r\n\r\n", at) + len(END)) < len(data) + at:
            answer = self.answer(data[at:end])
            if answer is None:
                break
            found.append(answer)
            size, at = size + len(answer), end
        return b"".join(found), at

    def _find(self, data: bytes) -> bytes | None:
        if data.startswith(b"POST "):
            return self._find_posted(data)
        text = data.decode("latin-1")
        for matching, answer, asked in self._shortcuts:
            match = matching(text)
            if match is not None:
                return self._told(answer, match, text[match.end() :], asked, data)
        return None

    def _find_posted(self, data: bytes) -> bytes | None:
        """Answer a request whose body came with it as a whole, and nothing behind it."""
        end = data.find(b"\r\n\r\n") + len(END)
        head = data[:end].decode("latin-1")
        length = LENGTH_FIELD.search(head)
        if length is None or int(length[1]) != len(data) - end:
            return None
        line, _, block = (head[: length.start()] + head[length.end() :]).partition("\r\n")
        answer, asked = self._posted.get(line, (None, UNTOLD))
        return None if answer is None else self._told(answer, data[end:], block, asked, data)

    def _told(self, answer: Answer[Asked], what: Asked, block: str, asked: Count, data: bytes) -> bytes | None:
        """Return the answer to ``what`` is asked with a block of fields, in the request ``data``."""
        said = self._said.get(block) or self._read(block)
        if said is None:
            return None
        try:
            lasting = answer(what, said) if said.request_id is None else called(said.request_id, answer, what, said)
        except SidecarError:  # what is refused is refused by aiohttp's handler
            return None
        if lasting is None:
            return None
        asked.n += 1
        ready = self._made(lasting, asked)
        _, oldest, before, digits, after, thousandths, *_ = ready
        if lasting.age < oldest and said.request_id is None:
            self._keep(data, ready)
        return before + digits[ceil(lasting.age * 1000) - thousandths] + after

    def _keep(self, data: bytes, ready: Ready) -> None:
        """Have ``ready`` repeated, as long as there is room; no answer is kept long, so then all make room."""
        if self._room < 0:
            self.forget()
        self._room -= PER_ANSWER + len(data) + len(ready[2]) + len(ready[4])
        self._ready[data] = ready

    def _made(self, lasting: Lasting, asked: Count) -> Ready:
        """Return the bytes of an answer, and how long they are good."""
        heads, as_of, age, oldest, before, after, fields, told = lasting
        whole, more = divmod(ceil(age * 1000), 1000)
        bucket, bound = self._ages.bucket(age)
        if not more:
            oldest = -1.0  # exactly ``whole`` is a second less in the head
        elif oldest > (last := whole + 0.998) or oldest > bound:
            oldest = min(last, bound)
        head = f"{heads.at(as_of + age, whole + bool(more))}{fields}Content-Length: "
        if after is None:
            start = f"{head}{len(before)}\r\n\r\n".encode() + before
            return as_of, oldest, start, NO_DIGITS, b"", whole * 1000, bucket, told, asked
        seconds = b"%d." % whole
        start = f"{head}{len(before) + len(seconds) + 3 + len(after)}\r\n\r\n".encode() + before + seconds
        return as_of, oldest, start, DIGITS, after, whole * 1000, bucket, told, asked

    def _read(self, block: str) -> Said | None:
        """Return what ``block`` says, and remember it; None when it is not simple, or not allowed."""
        fields = read_fields(block)
        if fields is None or "host" not in fields or not fields.keys().isdisjoint(LONG_WAY):
            return None
        try:
            self._gate.check(fields["host"], fields.get("authorization", ""))
            account = account_id(fields["stripe-account"]) if "stripe-account" in fields else None
            said = Said(account, wishes(fields.get("cache-control")), fields.get(HEADER.lower()))
        except SidecarError:
            return None
        if said.request_id is not None:
            return said if ACCEPTABLE.fullmatch(said.request_id) else said._replace(request_id=None)
        if len(self._said) >= MOST_SAID:
            self._said.clear()
        self._said[block] = said = NOTHING if said == Said() else said
        return said


def called(name: str, answer: Answer[Asked], what: Asked, said: Said) -> Lasting | None:
    """Return the answer to a request that its caller calls ``name``, with that among its fields."""
    token = request_id.set(name)
    try:
        found = answer(what, said)
    finally:
        request_id.reset(token)
    return found and found._replace(fields=f"{found.fields}{HEADER}: {name}\r\n")
