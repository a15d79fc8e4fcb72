"""HTTP/1.1 as text."""

from random import Random
from typing import Any

import pytest
from aiohttp.http import SERVER_SOFTWARE
from hypothesis import given
from hypothesis import strategies as st

from sidecar.wire import LONGEST, MOST, Follower, Heads, length_of_body, lines, read_fields


def test_simple_fields_are_read() -> None:
    """By their names in lower case; with one blank after the colon, or none."""
    assert read_fields("Host: localhost\r\nX_a-1:b c\r\n\r\n") == {"host": "localhost", "x_a-1": "b c"}


@pytest.mark.parametrize(
    "block",
    [
        "\r\n",
        "\r\n\r\n",
        "Host: localhost\r\n",
        "Host: localhost\r\n\r\nmore",
        "Host: localhost\r\n\r\nHost: localhost\r\n\r\n",
        "Host : localhost\r\n\r\n",
        " Host: localhost\r\n\r\n",
        "Host:  localhost\r\n\r\n",
        "Host:\tlocalhost\r\n\r\n",
        "Host: localhost \r\n\r\n",
        "Host:\r\n\r\n",
        "Host: \r\n\r\n",
        ": localhost\r\n\r\n",
        "Host localhost\r\n\r\n",
        "Host: local\thost\r\n\r\n",
        "Host: local\nhost\r\n\r\n",
        "Host: local\rhost\r\n\r\n",
        "Host: localhost\n\r\n\r\n",
        "Host: local\x00host\r\n\r\n",
        "Host: local\x7fhost\r\n\r\n",
        "Host: localhöst\r\n\r\n",
        "Höst: localhost\r\n\r\n",
        "H(st: localhost\r\n\r\n",
        "A: b\r\n c\r\n\r\n",
        "A: b\r\na: b\r\n\r\n",
        "Content-Length: 1\r\nContent-Length: 1\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n",
        "transfer-encoding: identity\r\n\r\n",
        "Trailer: A\r\n\r\n",
        "Expect: 100-continue\r\n\r\n",
        "Upgrade: websocket\r\n\r\n",
        "HTTP2-Settings: AAAA\r\n\r\n",
        "Sec-WebSocket-Key1: a\r\n\r\n",
        "Connection: close\r\n\r\n",
        "Connection: keep-alive, close\r\n\r\n",
        "Connection: Keep-Alive, TE\r\n\r\n",
        "Connection: upgrade\r\n\r\n",
        "Proxy-Connection: close\r\n\r\n",
        "A: " + "b" * LONGEST + "\r\n\r\n",
        "".join(f"A{place}: b\r\n" for place in range(MOST + 1)) + "\r\n",
    ],
)
def test_what_readers_may_read_differently_is_not_simple(block: str) -> None:
    """Nothing is said of it."""
    assert read_fields(block) is None


@pytest.mark.parametrize("value", ["keep-alive", "Keep-Alive", "KEEP-ALIVE"])
@pytest.mark.parametrize("name", ["Connection", "Proxy-Connection"])
def test_to_keep_the_connection_is_what_is_done_anyway(name: str, value: str) -> None:
    """In any case of letters."""
    assert read_fields(f"{name}: {value}\r\n\r\n") == {name.lower(): value}


def test_as_many_fields_as_a_simple_block_may_have() -> None:
    """And as many characters."""
    fields = "".join(f"A{place}: b\r\n" for place in range(MOST)) + "\r\n"
    assert len(read_fields(fields) or {}) == MOST
    longest = "A: " + "b" * (LONGEST - 7) + "\r\n\r\n"
    assert read_fields(longest) == {"a": "b" * (LONGEST - 7)}
    assert read_fields("A" + longest) is None


@pytest.mark.parametrize(
    ("head", "length"),
    [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 0),
        ("POST /a?b HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 0),
        ("POST / HTTP/1.1\r\ncontent-length: 12\r\nHost: a\r\n\r\n", 12),
        ("GET / HTTP/1.1\r\nContent-Length: 999999999\r\n\r\n", 999999999),
        ("GET / HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\n", None),
        ("GET / HTTP/1.1\r\nContent-Length: 01\r\n\r\n", None),
        ("GET / HTTP/1.1\r\nContent-Length: +1\r\n\r\n", None),
        ("GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", None),
        ("GET / HTTP/1.1\r\nContent-Length: 0x1\r\n\r\n", None),
        ("GET / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n", None),
        ("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", None),
        ("GET / HTTP/1.0\r\nHost: a\r\n\r\n", None),
        ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", None),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", None),
        ("get / HTTP/1.1\r\nHost: a\r\n\r\n", None),
        ("GET /\xe9 HTTP/1.1\r\nHost: a\r\n\r\n", None),
        ("GET /\t HTTP/1.1\r\nHost: a\r\n\r\n", None),
        ("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", None),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", None),
        ("PRI * HTTP/2.0\r\n\r\n", None),
        ("\r\n\r\n", None),
    ],
)
def test_how_much_follows_a_head(head: str, length: int | None) -> None:
    """None when that is not beyond doubt: what follows CONNECT, for one, is no request."""
    assert length_of_body(head) == length


# --- following -----------------------------------------------------------------------------------------------------

SIMPLE = (
    b"GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"POST /b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n",
    b"POST /b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello",
    b"PUT /b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 38\r\n\r\nGET /a HTTP/1.1\r\nHost: localhost\r\n\r\n\0\0",
    b"GET /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n\r\n\r\n",
)
STRANGE = (
    b"GET /a HTTP/1.0\r\n\r\n",
    b"GET /a HTTP/1.1\r\nConnection: close\r\n\r\n",
    b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"\r\nGET /a HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"POST /a HTTP/1.1\r\nContent-Length: 05\r\n\r\nhello",
    b"x" * (LONGEST + 1),
)


@given(
    requests=st.lists(st.sampled_from(SIMPLE), max_size=6),
    strange=st.none() | st.sampled_from(STRANGE),
    more=st.lists(st.sampled_from(SIMPLE), max_size=2),
    random=st.randoms(use_true_random=False),
)
def test_it_is_between_requests_exactly_when_all_that_passed_are_whole_ones(
    requests: list[bytes], strange: bytes | None, more: list[bytes], random: Random
) -> None:
    """However they are cut; from the first strange one on it is lost, and stays so."""
    ends, stream = {0}, b""
    for request in requests:
        stream += request
        ends.add(len(stream))
    known, stream = len(stream), stream + (strange or b"") + b"".join(more if strange else [])
    places = sorted({random.randrange(len(stream) + 1) for _ in range(random.randrange(10))} | {known, len(stream)})
    follower, at, was_lost = Follower(), 0, False
    for place in places:
        follower.follow(stream[at:place])
        at = place
        if at <= known:
            assert follower.is_between is (at in ends)
            assert not follower.is_lost
        else:
            assert not follower.is_between
        assert was_lost <= follower.is_lost
        was_lost = follower.is_lost
    assert follower.is_lost is (strange is not None)


def test_who_is_lost_remembers_nothing() -> None:
    """A connection may go on for days like that."""
    follower = Follower()
    follower.follow(STRANGE[0])
    assert follower.is_lost
    for _ in range(100):
        follower.follow(SIMPLE[0] + b"GET /")
    assert not follower._head
    assert follower._body == 0


@pytest.mark.parametrize("size", [LONGEST, LONGEST + 1])
def test_half_a_head_may_be_as_long_as_a_simple_one(size: int) -> None:
    """In pieces of one byte as in one; what is longer is not waited for."""
    whole, pieces = Follower(), Follower()
    whole.follow(b"x" * size)
    for _ in range(size):
        pieces.follow(b"x")
    assert whole.is_lost is pieces.is_lost is (size > LONGEST)
    assert len(whole._head) == len(pieces._head) == (0 if size > LONGEST else size)


def test_many_requests_at_once_are_not_copied_for_each() -> None:
    """They are gone through once: 256 KiB of the smallest requests, as a socket may give, hold nobody up."""

    class Counting(bytes):
        copied = 0

        def __getitem__(self, key: Any) -> Any:
            found = super().__getitem__(key)
            Counting.copied += len(found)
            return found

        def __radd__(self, other: bytes) -> "Counting":
            return self

    data = Counting(b"GET / HTTP/1.1\r\nA: b\r\n\r\n" * 10_000)
    follower = Follower()
    follower.follow(data)
    assert follower.is_between
    assert Counting.copied <= len(data)


# --- heads ---------------------------------------------------------------------------------------------------------


def test_a_head_is_made_once_in_a_second() -> None:
    """It has the fields of its age, and the date, which it keeps for that second."""
    made: list[int] = []

    def fields(age: int) -> dict[str, str]:
        made.append(age)
        return {"Age": str(age)}

    heads = Heads(fields)
    head = heads.at(1_790_000_000.2, 5)
    assert head == (
        "HTTP/1.1 200 OK\r\nAge: 5\r\nContent-Type: application/json\r\n"
        f"Date: Mon, 21 Sep 2026 14:13:20 GMT\r\nServer: {SERVER_SOFTWARE}\r\n"
    )
    assert heads.at(1_790_000_000.9, 5) is head
    assert heads.at(1_790_000_000.9, 6) == head.replace("Age: 5", "Age: 6")
    assert heads.at(1_790_000_001.0, 5) == head.replace(":20 GMT", ":21 GMT")
    assert made == [5, 6, 5]
    assert len(heads._heads) == 1, "those of the second before are gone"


def test_fields_are_lines() -> None:
    """Each with its end."""
    assert lines({"A": "b", "C": "d e"}) == "A: b\r\nC: d e\r\n"
    assert lines({}) == ""
