"""HTTP/1.1 as text, without sockets: what a simple block of header fields says, and the head of an answer.

Simple is what every reader of HTTP reads alike (RFC 9112 §5): one line per field, a name of letters, digits, dashes and
underscores, a value of visible ASCII, no field that says where the request ends or what becomes of the connection. Of
anything else nothing is said here; it is aiohttp's to read, and to refuse.
"""

import re
from collections.abc import Callable, Mapping
from email.utils import formatdate

from aiohttp.http import SERVER_SOFTWARE

END = "\r\n\r\n"
"""What a request's head ends with, and a block of fields with it."""

LONGEST = 4 << 10
"""Characters that a simple block has at most."""

MOST = 48
"""Fields that a simple block has at most."""

FIELD = re.compile(r"([A-Za-z0-9_-]+): ?([!-~](?:[ -~]*[!-~])?)")

DECISIVE = frozenset({"transfer-encoding", "trailer", "expect", "upgrade", "http2-settings", "sec-websocket-key1"})
"""Fields with which a request is not simple: its end is elsewhere, or there has to be another answer first."""

CONNECTION = ("connection", "proxy-connection")
"""Fields that may close a connection; aiohttp's parser takes the old name for the new."""

LENGTH = re.compile("0|[1-9][0-9]{0,8}")


def read_fields(block: str) -> dict[str, str] | None:
    """Return the fields of ``block`` by their names in lower case; None when it is not simple.

    ``block`` is all that follows the request line, its empty line included. A ``Content-Length`` is the one thing that may
    say that there is a body.
    """
    if len(block) > LONGEST or not block.endswith(END):
        return None
    lines = block[: -len(END)].split("\r\n")
    fields: dict[str, str] = {}
    for line in lines:
        match = FIELD.fullmatch(line)
        if match is None:
            return None
        name = match[1].lower()
        if name in fields or name in DECISIVE:
            return None
        fields[name] = match[2]
    if len(lines) > MOST or any(fields.get(name, "keep-alive").lower() != "keep-alive" for name in CONNECTION):
        return None
    return fields


class Follower:
    """Follows requests that pass by, to know when the last one is complete: ``is_between`` two, or ``is_lost``.

    Once it is lost it stays so: who read on would take for a request what may be the body of another.
    """

    def __init__(self) -> None:
        self.is_lost = False
        self._head = b""
        self._body = 0

    @property
    def is_between(self) -> bool:
        """Whether all that has passed by are whole requests."""
        return not (self.is_lost or self._head or self._body)

    def follow(self, data: bytes) -> None:
        """Take note of what passes by."""
        if self.is_lost:
            return
        data, self._head = self._head + data, b""
        at, self._body = self._body, 0
        while at < len(data):
            end = data.find(b"\r\n\r\n", at) + len(END)
            if end < len(END):
                self._head = data[at:]
                self.is_lost = len(self._head) > LONGEST
                break
            length = length_of_body(data[at:end].decode("latin-1"))
            if length is None:
                self.is_lost = True
                break
            at = end + length
        self._body = max(0, at - len(data))
        if self.is_lost:
            self._head = b""


LINE = re.compile("(?!CONNECT )[A-Z]+ [!-~]+ HTTP/1\\.1\r\n")


def length_of_body(head: str) -> int | None:
    """Return how many bytes follow a request's ``head``; None when that is not beyond doubt."""
    line = LINE.match(head)
    fields = None if line is None else read_fields(head[line.end() :])
    if fields is None:
        return None
    length = fields.get("content-length", "0")
    return int(length) if LENGTH.fullmatch(length) else None


class Heads:
    """Heads of answers with status 200, but for what differs between answers of one age; each is made once in a second.

    ``fields`` returns the fields that go with an age in seconds.
    """

    def __init__(self, fields: Callable[[int], Mapping[str, str]]) -> None:
        self._fields = fields
        self._second = 0
        self._date = ""
        self._heads: dict[int, str] = {}

    def at(self, now: float, age: int) -> str:
        """Return the head of an answer that is ``age`` seconds old ``now``, in Unix seconds, as lines."""
        if int(now) != self._second:
            self._second = int(now)
            self._date = formatdate(self._second, usegmt=True)
            self._heads.clear()
        head = self._heads.get(age)
        if head is None:
            fields = {**self._fields(age), "Content-Type": "application/json", "Date": self._date}
            fields["Server"] = SERVER_SOFTWARE
            head = self._heads[age] = "HTTP/1.1 200 OK\r\n" + lines(fields)
        return head


def lines(fields: Mapping[str, str]) -> str:
    """Return header fields as they are sent."""
    return "".join([f"{name}: {value}\r\n" for name, value in fields.items()])
