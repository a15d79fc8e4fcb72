"""Nothing that can be observed differs between the shortcuts and aiohttp alone, but speed."""

import re
from io import StringIO
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from sidecar.api.answers import VERDICTS
from tests.fakes import FakeClock
from tests.fuzz.__main__ import arguments, fuzz
from tests.fuzz.cases import HIT, Case, case
from tests.fuzz.judge import Answer, Different, Judge, alike, judge_seed, listening
from tests.kit.virtual import play

SOME = 2
"""Seeds of 500 connections that every run of the tests has; ``make fuzz`` has more."""


def check(
    *fields: str,
    target: str = "/v1/customers/cus_1/entitlements/a",
    line: str = "GET {} HTTP/1.1",
    host: str = "Host: localhost",
) -> bytes:
    """Return a check with these fields, each as it is."""
    return "\r\n".join([line.format(target), *([host] if host else []), *fields, "", ""]).encode("latin-1")


PATH = "/v1/customers/cus_1/entitlements/a"
PAGE = "/v1/entitlements/active_entitlements"
POST = "POST /v1/checks HTTP/1.1\r\nHost: localhost\r\n"
EMPTY = '{"checks":[]}'
BATCH = '{"checks":[{"customer":"cus_1","lookup_key":"a"},{"customer":"cus_many","lookup_key":"b"}]}'


def posted(body: str, *fields: str, target: str = "/v1/checks", line: str = "POST {} HTTP/1.1") -> bytes:
    """Return a batch with its length and these fields."""
    return check(f"Content-Length: {len(body)}", *fields, target=target, line=line) + body.encode()


PLAIN: dict[str, bytes] = {
    "nothing but a Host": check(),
    "a port in Host": check(host="Host: localhost:7420"),
    "Host in upper case": check(host="Host: LOCALHOST"),
    "Host in IPv6": check(host="Host: [::1]:7420"),
    "no blank after a colon": check(host="Host:localhost"),
    "a field's name in upper case": check(host="HOST: localhost"),
    "forty-eight fields": check(*(f"A{place}: b" for place in range(47))),
    "Connection: keep-alive": check("Connection: keep-alive"),
    "Connection: Keep-Alive": check("Connection: Keep-Alive"),
    "Keep-Alive": check("Keep-Alive: timeout=5, max=100"),
    "a key of dots": check(target="/v1/customers/cus_1/entitlements/.."),
    "a key of one dot": check(target="/v1/customers/cus_1/entitlements/."),
    "an underscore in a field's name": check("Content_Length: 5"),
    "a Cookie": check("Cookie: a=b; c=d"),
    "a Referer": check("Referer: http://localhost/?a=b#c"),
    "a Content-Type without content": check("Content-Type: multipart/form-data"),
    "Range": check("Range: bytes=0-1"),
    "If-Modified-Since": check("If-Modified-Since: Mon, 21 Sep 2026 14:13:20 GMT"),
    "Max-Forwards": check("Max-Forwards: 0"),
    "TE without Connection": check("TE: trailers"),
    "a name for it": check("X-Request-Id: abc 1"),
    "too long a name for it": check("X-Request-Id: " + "a" * 201),
    "a method in a field": check("X-HTTP-Method-Override: POST"),
    "another host in a field": check("X-Forwarded-Host: evil.example"),
    "a list": check(target="/v1/customers/cus_1/entitlements"),
    "a page": check(target=f"{PAGE}?customer=cus_1"),
    "a page of one": check(target=f"{PAGE}?limit=1&customer=cus_1"),
    "a page after a cursor": check(target=f"{PAGE}?customer=cus_1&starting_after=ent_cus_1_a&limit=100"),
    "a page with empty parameters": check(target=f"{PAGE}?&customer=cus_1&&"),
    "a batch": posted(BATCH),
    "a batch about nobody": posted(EMPTY),
    "a batch with blanks in it": posted(BATCH.replace(":", " : ")),
    "a batch with a name for it": posted(BATCH, "X-Request-Id: abc"),
    "a batch of a length in lower case": posted(BATCH).replace(b"Content-Length", b"content-length"),
    "a batch of a length without a blank": posted(BATCH).replace(b"Content-Length: ", b"Content-Length:"),
    "a batch with a type": posted(BATCH, "Content-Type: text/plain"),
    "a batch with a request in it": posted(BATCH.replace('"b"', '"GET / HTTP/1.1"').replace(",", ",\r\n\r\n", 1)),
    "a page of another account": check("Stripe-Account: acct_1", target=f"{PAGE}?customer=cus_1"),
}
"""Requests that have a shortcut."""

STRANGE: dict[str, bytes] = {
    "two equal Content-Lengths": check("Content-Length: 0", "Content-Length: 0"),
    "two different Content-Lengths": check("Content-Length: 0", "Content-Length: 5"),
    "Content-Length and Transfer-Encoding": check("Content-Length: 5", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "Transfer-Encoding and Content-Length": check("Transfer-Encoding: chunked", "Content-Length: 5") + b"0\r\n\r\n",
    "Transfer-Encoding: chunked": check("Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "Transfer-Encoding: xchunked": check("Transfer-Encoding: xchunked"),
    "Transfer-Encoding: chunked, identity": check("Transfer-Encoding: chunked, identity"),
    "Transfer-Encoding: identity": check("Transfer-Encoding: identity"),
    "Transfer-Encoding twice": check("Transfer-Encoding: chunked", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "Transfer-Encoding with a vertical tab": check("Transfer-Encoding: \x0bchunked"),
    "Content-Length: +5": check("Content-Length: +5") + b"hello",
    "Content-Length: -1": check("Content-Length: -1"),
    "Content-Length: 0x5": check("Content-Length: 0x5") + b"hello",
    "Content-Length: 5, 5": check("Content-Length: 5, 5") + b"hello",
    "Content-Length: 05": check("Content-Length: 05") + b"hello",
    "Content-Length: 5 and a tab": check("Content-Length: 5\t") + b"hello",
    "Content-Length : 5": check("Content-Length : 5") + b"hello",
    "an enormous Content-Length": check("Content-Length: 99999999999999999999"),
    "an empty Content-Length": check("Content-Length: "),
    "a body after GET": check("Content-Length: 5") + b"hello",
    "a body after GET that is not announced": check() + b"hello\r\n\r\n",
    "a request in a body": check(f"Content-Length: {len(HIT)}") + HIT,
    "a request in a chunk": check("Transfer-Encoding: chunked") + b"%x\r\n%s\r\n0\r\n\r\n" % (len(HIT), HIT),
    "a request behind a body that is too short": check("Content-Length: 3") + HIT,
    "a body whose end is missing": posted(BATCH)[:-1],
    "a body that is no JSON": posted("{"),
    "a body that is too long for its Content-Length": posted(BATCH) + b" ",
    "an empty body": posted(""),
    "a batch of an unknown customer": posted(BATCH.replace("cus_many", "cus_unknown")),
    "a batch of a customer who is due": posted(BATCH.replace("cus_many", "cus_due")),
    "a batch of a key that is none": posted(BATCH.replace('"b"', '"\x01"')),
    "a batch that is more than checks": posted('{"checks":[],"a":1}'),
    "a batch with an account in it": posted(BATCH.replace('"a"', '"a","account":"acct_1"', 1)),
    "a batch in another account": posted(BATCH, "Stripe-Account: acct_1"),
    "a batch with a bound": posted(BATCH, "Cache-Control: max-age=600"),
    "a batch that is encoded": posted(BATCH, "Content-Encoding: gzip"),
    "a batch that is not encoded": posted(BATCH, "Content-Encoding: identity"),
    "a batch with a second Content-Length": posted(BATCH, f"Content-Length: {len(BATCH)}"),
    "a batch with another Content-Length": posted(BATCH, "Content-Length: 3"),
    "a batch in chunks": posted(BATCH, "Transfer-Encoding: chunked"),
    "a batch that waits for 100": posted(BATCH, "Expect: 100-continue"),
    "a batch with a default": posted(BATCH, target="/v1/checks?default=allow"),
    "a batch that is got": posted(BATCH, line="GET {} HTTP/1.1"),
    "a batch that is put": posted(BATCH, line="PUT {} HTTP/1.1"),
    "a batch in HTTP/1.0": posted(BATCH, line="POST {} HTTP/1.0"),
    "a Content-Length that is folded": posted(BATCH).replace(b"Content-Length: ", b"Content-Length:\r\n "),
    "a Content-Length with a zero before it": posted(BATCH).replace(b"Content-Length: ", b"Content-Length: 0"),
    "a Content-Length with a blank behind it": posted(BATCH).replace(b"\r\n\r\n", b" \r\n\r\n", 1),
    "a Content-Length after two blanks": posted(BATCH).replace(b"Content-Length: ", b"Content-Length:  "),
    "a Content-Length with a tab": posted(BATCH).replace(b"Content-Length: ", b"Content-Length:\t"),
    "a POST with a request behind its body": f"{POST}Content-Length: 13\r\n\r\n{EMPTY}".encode() + HIT,
    "a POST that is longer than it says": f"{POST}Content-Length: 5\r\n\r\n{EMPTY}".encode(),
    "a POST without a length": f"{POST}\r\n{EMPTY}\r\n\r\n".encode(),
    "bare LF": check().replace(b"\r\n", b"\n"),
    "bare LF after the request line": check().replace(b"\r\n", b"\n", 1),
    "bare LF after a field": check("A: b\nB: c"),
    "bare LF as the empty line": check()[:-2] + b"\n",
    "bare CR": check().replace(b"\r\n", b"\r"),
    "bare CR in a field": check("A: b\rB: c"),
    "a line that is folded": check("A: b\r\n c"),
    "a first field that is folded": check(host=" Host: localhost"),
    "NUL in a value": check("A: b\0c"),
    "NUL in a name": check("A\0: b"),
    "NUL in the target": check(target=PATH + "\0"),
    "absolute-form": check(target="http://localhost" + PATH),
    "absolute-form of another host": check(target="http://evil.example" + PATH),
    "absolute-form of https": check(target="https://localhost" + PATH),
    "authority-form": check(target="localhost:443"),
    "CONNECT": check(target="localhost:443", line="CONNECT {} HTTP/1.1"),
    "CONNECT with a request behind it": check(target="localhost:443", line="CONNECT {} HTTP/1.1") + HIT,
    "asterisk-form": check(target="*", line="OPTIONS {} HTTP/1.1"),
    "two slashes at first": check(target="/" + PATH),
    "two slashes inside": check(target=PATH.replace("/cus_1", "//cus_1")),
    "a backslash": check(target=PATH.replace("/cus_1", "\\cus_1")),
    "dots that are escaped": check(target="/v1/customers/%2e%2e/entitlements/a"),
    "dots": check(target="/v1/customers/../customers/cus_1/entitlements/a"),
    "a letter that is escaped": check(target="/v1/customers/cus_1/entitlements/%61"),
    "a slash that is escaped": check(target="/v1/customers/cus_1/entitlements/a%2Fb"),
    "a percent sign that is escaped": check(target="/v1/customers/cus_1/entitlements/%2561"),
    "half an escape": check(target="/v1/customers/cus_1/entitlements/%6"),
    "NUL that is escaped": check(target="/v1/customers/cus_1/entitlements/%00"),
    "a question mark": check(target=PATH + "?"),
    "a parameter": check(target=PATH + "?default=allow"),
    "a fragment": check(target=PATH + "#a"),
    "a semicolon": check(target=PATH + ";a=b"),
    "a plus": check(target=PATH + "+b"),
    "a slash at the end": check(target=PATH + "/"),
    "an 8-bit byte in the target": check(target=PATH + "\xe9"),
    "an 8-bit byte in a value": check("A: \xe9"),
    "an 8-bit byte in a name": check("\xe9: a"),
    "a target that is too long": check(target="/" + "a" * 17_000),
    "a value that is too long": check("A: " + "b" * 17_000),
    "a value that is long": check("A: " + "b" * 8000),
    "a head that is too long": check(*(f"A{place}: " + "b" * 1000 for place in range(17))),
    "a key that is too long": check(target="/v1/customers/cus_1/entitlements/" + "a" * 201),
    "a tab after a colon": check("A:\tb"),
    "a tab in a value": check("A: b\tc"),
    "a tab in the request line": check(line="GET\t{}\tHTTP/1.1"),
    "two blanks after a colon": check("A:  b"),
    "a blank at the end of a value": check("A: b "),
    "a blank before a colon": check("A : b"),
    "a blank at the end of the request line": check(line="GET {} HTTP/1.1 "),
    "two blanks in the request line": check(line="GET  {} HTTP/1.1"),
    "a blank before the request line": check(line=" GET {} HTTP/1.1"),
    "an empty line before the request line": b"\r\n" + check(),
    "an empty line behind the request": check() + b"\r\n",
    "a method in lower case": check(line="get {} HTTP/1.1"),
    "no method": check(line="{} HTTP/1.1"),
    "an unknown method": check(line="GETT {} HTTP/1.1"),
    "HEAD": check(line="HEAD {} HTTP/1.1"),
    "no version": check(line="GET {}"),
    "HTTP/0.9": check(line="GET {} HTTP/0.9"),
    "HTTP/1.0": check(line="GET {} HTTP/1.0"),
    "HTTP/1.0 that is kept alive": check("Connection: keep-alive", line="GET {} HTTP/1.0"),
    "HTTP/1.2": check(line="GET {} HTTP/1.2"),
    "HTTP/2.0": check(line="GET {} HTTP/2.0"),
    "http/1.1": check(line="GET {} http/1.1"),
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "forty-nine fields": check(*(f"A{place}: b" for place in range(48))),
    "sixty-four fields": check(*(f"A{place}: b" for place in range(63))),
    "sixty-five fields": check(*(f"A{place}: b" for place in range(64))),
    "seventy fields": check(*(f"A{place}: b" for place in range(69))),
    "an empty value": check("A:"),
    "an empty value after a blank": check("A: "),
    "an empty name": check(": a"),
    "no colon": check("A"),
    "two equal Hosts": check("Host: localhost"),
    "two different Hosts": check("Host: evil.example"),
    "no Host": check(host=""),
    "an empty Host": check(host="Host:"),
    "another Host": check(host="Host: evil.example"),
    "Host with a dot at its end": check(host="Host: localhost."),
    "Host with a user in it": check(host="Host: a@localhost"),
    "Host with a path": check(host="Host: localhost/a"),
    "Host with half a port": check(host="Host: localhost:x"),
    "Host with a blank": check(host="Host: local host"),
    "Connection: close": check("Connection: close"),
    "Connection: close, keep-alive": check("Connection: close, keep-alive"),
    "Connection: keep-alive, close": check("Connection: keep-alive, close"),
    "Connection: Keep-Alive, TE": check("Connection: Keep-Alive, TE", "TE: trailers"),
    "Connection: upgrade": check("Connection: upgrade"),
    "Connection twice": check("Connection: keep-alive", "Connection: close"),
    "Proxy-Connection: close": check("Proxy-Connection: close"),
    "Proxy-Connection: close, Connection: keep-alive": check("Proxy-Connection: close", "Connection: keep-alive"),
    "Upgrade: h2c": check("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"),
    "Upgrade: websocket": check("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
    "Upgrade without Connection": check("Upgrade: websocket"),
    "an old websocket": check("Sec-WebSocket-Key1: a"),
    "Expect: 100-continue": check("Expect: 100-continue"),
    "Expect: banana": check("Expect: banana"),
    "Trailer": check("Trailer: A"),
    "Content-Length: 0": check("Content-Length: 0"),
    "two User-Agents": check("User-Agent: a", "User-Agent: b"),
    "two Authorizations": check("Authorization: Bearer a", "Authorization: Bearer b"),
    "two Cache-Controls": check("Cache-Control: max-age=600", "Cache-Control: max-age=5"),
    "two accounts": check("Stripe-Account: acct_1", "Stripe-Account: acct_1"),
    "two names for it": check("X-Request-Id: a", "X-Request-Id: b"),
    "what the caller has already": check('If-None-Match: W/"x"', target="/v1/customers/cus_1/entitlements"),
    "a list of an unknown customer": check(target="/v1/customers/cus_unknown/entitlements"),
    "a list of a customer that was unknown long ago": check(
        "Cache-Control: max-stale", target="/v1/customers/cus_gone/entitlements"
    ),
    "a page of nobody": check(target=f"{PAGE}?limit=1"),
    "a page of two": check(target=f"{PAGE}?customer=cus_1&customer=cus_1"),
    "a page without a query": check(target=PAGE),
    "a page with an empty query": check(target=f"{PAGE}?"),
    "a page with an unknown parameter": check(target=f"{PAGE}?customer=cus_1&a=b"),
    "a page with an escape": check(target=f"{PAGE}?customer=cus%5F1"),
    "a page with limit 0": check(target=f"{PAGE}?customer=cus_1&limit=0"),
    "a page with limit 01": check(target=f"{PAGE}?customer=cus_1&limit=01"),
    "a page with two limits": check(target=f"{PAGE}?customer=cus_1&limit=1&limit=1"),
    "a page with both cursors": check(
        target=f"{PAGE}?customer=cus_1&starting_after=ent_cus_1_a&ending_before=ent_cus_1_a"
    ),
    "a page after what is not there": check(target=f"{PAGE}?customer=cus_1&starting_after=ent_nobody"),
    "a page after an empty cursor": check(target=f"{PAGE}?customer=cus_1&starting_after="),
    "a page of an unknown customer": check(target=f"{PAGE}?customer=cus_unknown"),
    "a page of a customer that was unknown long ago": check("Cache-Control: max-stale", target=f"{PAGE}?customer=cus_gone"),
    "a page with a semicolon": check(target=f"{PAGE}?customer=cus_1;limit=1"),
    "half a request": check()[:-1],
    "a Content-Encoding without content": check("Content-Encoding: gzip"),
    "nothing at all": b"\r\n\r\n",
}  # fmt: skip
"""Requests that have none, one for each way in which readers of HTTP have come to differ."""


def judged(*said: Case) -> tuple[Judge, list[list[Answer]]]:
    """Let two worlds hear each, and return who judged, and the answers."""
    clock = FakeClock()
    judge = Judge(clock)

    async def story() -> list[list[Answer]]:
        await judge.open()
        found = [await judge.hear(one) for one in said]
        await judge.close()
        return found

    with listening():
        return judge, play(clock, story())


def cuts(data: bytes) -> list[Case]:
    """Return ways in which ``data`` can come, other requests before and behind it."""
    end = data.find(b"\r\n\r\n")
    halves = [data[: end + place] for place in range(5)]
    return [
        Case(((0.0, data),), 3.3),
        Case(((0.0, data), (0.0, HIT), (0.0, HIT))),
        Case(((0.0, data + b"\0\r\n\r\n"),)),
        Case(((0.0, data + HIT + HIT),)),
        Case(((0.0, HIT + data + HIT), (0.0, HIT))),
        Case(((0.0, HIT), (0.0, data), (0.0, HIT)), 3.3),
        *(Case(((0.0, half), (0.1, data[len(half) :] + HIT), (0.0, HIT))) for half in halves),
        *([Case(tuple((0.0, data[place : place + 1]) for place in range(len(data))))] if len(data) < 200 else []),
    ]


@pytest.mark.parametrize("name", PLAIN)
def test_what_is_simple_is_answered_alike(name: str) -> None:
    """By its shortcut, which is taken also within other requests."""
    judge, _ = judged(Case(((0.0, PLAIN[name]),)))
    assert judge.shortcuts == 1
    _ = judged(*cuts(PLAIN[name]))


@pytest.mark.parametrize("name", STRANGE)
def test_what_is_not_is_answered_alike(name: str) -> None:
    """By aiohttp, whatever is before or behind it, and wherever it is cut."""
    if STRANGE[name].startswith(check()):
        _ = judged(*cuts(STRANGE[name]))
        return
    judge, _ = judged(Case(((0.0, STRANGE[name]),)))
    assert judge.shortcuts == 0
    _ = judged(*cuts(STRANGE[name]))


@pytest.mark.parametrize("seed", range(SOME))
def test_what_is_made_up_is_answered_alike(seed: int) -> None:
    """Some hundreds of connections; many of them take a shortcut."""
    judge, found = judge_seed(seed)
    assert found is None, found
    assert judge.answers > 500
    assert judge.shortcuts > 100


@settings(max_examples=20)
@given(random=st.randoms(use_true_random=False))
def test_the_smallest_that_differs_is_found(random: Random) -> None:
    """The same, by Hypothesis, which makes what fails smaller."""
    _ = judged(case(random), case(random))


def test_a_difference_is_told() -> None:
    """With what each of the two did."""
    alike("answers", [1], [1])
    with pytest.raises(Different, match=r"answers:\n  with shortcuts \[1\]\n  aiohttp alone  \[2\]"):
        alike("answers", [1], [2])


@pytest.mark.parametrize(
    ("rule", "without", "name"),
    [
        ("sidecar.wire.CONNECTION", ("connection",), "Proxy-Connection: close"),
        ("sidecar.wire.DECISIVE", frozenset(), "Expect: banana"),
        ("sidecar.wire.DECISIVE", frozenset(), "an old websocket"),
        ("sidecar.wire.DECISIVE", frozenset(), "Transfer-Encoding: chunked"),
        ("sidecar.wire.MOST", 100, "seventy fields"),
        ("sidecar.wire.LONGEST", 20_000, "a value that is too long"),
        ("sidecar.wire.FIELD", re.compile("([^:\r]+): ?([^\r]+)"), "a blank before a colon"),
        ("sidecar.wire.FIELD", re.compile("([^:\r]+): ?([^\r]+)"), "NUL in a value"),
        ("sidecar.wire.FIELD", re.compile("([^:\r]+): ?([^\r]+)"), "bare LF after a field"),
        ("sidecar.api.shortcuts.LONG_WAY", frozenset(), "a request in a body"),
        ("sidecar.api.shortcuts.LONG_WAY", frozenset(), "what the caller has already"),
        ("sidecar.api.shortcuts.LONG_WAY", frozenset(), "a batch with another Content-Length"),
        ("sidecar.api.shortcuts.LONG_WAY", frozenset(), "a batch that is encoded"),
        (
            "sidecar.api.shortcuts.LENGTH_FIELD",
            re.compile(r"\r\ncontent-length:\s*([0-9]+)(?=\s)", re.IGNORECASE),
            "a Content-Length that is folded",
        ),
    ],
    ids=range(14),
)
def test_without_a_rule_there_is_a_difference(
    monkeypatch: pytest.MonkeyPatch, rule: str, without: object, name: str
) -> None:
    """So each is needed, and would be missed."""
    monkeypatch.setattr(rule, without)
    data = STRANGE[name]
    if name == "what the caller has already":
        (answer,) = judged(Case(((0.0, check(target="/v1/customers/cus_1/entitlements")),)))[1][0][1:]
        (tag,) = [field.partition(b": ")[2] for field in answer[1] if field.startswith(b"ETag")]
        data = data.replace(b'W/"x"', tag)
    with pytest.raises(Different):
        _ = judged(*cuts(data))


def test_it_can_be_run_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says how many answers there were; a difference ends it, with its seed and what was said."""
    console = Console(file=StringIO(), width=1000)
    assert arguments(["--cases", "7", "--seed", "3"]).seed == 3
    assert fuzz(range(1), console, 20) == 0
    monkeypatch.setattr("sidecar.api.answers.VERDICTS", VERDICTS[::-1])
    assert fuzz(range(9), console, 20) == 1
    assert isinstance(console.file, StringIO)
    told = console.file.getvalue()
    assert re.search(r"20 connections, \d+ answers, \d+ s\nNo difference in \d+ answers; \d+ times", told)
    assert re.search(r"DIFFERENT in seed (\d+): python -m tests.fuzz --seed \1\nCase.*\nanswers:\n  with", told)
