"""What a caller may send: requests of every kind, changed for the worse, cut anywhere.

All is drawn from a ``random.Random``: of a seed, when there are to be many; of Hypothesis's, when the smallest that fails is
to be found.
"""

import base64
import json
from dataclasses import dataclass
from random import Random
from typing import Any

from aiohttp import hdrs

from tests.fuzz.worlds import REMEMBERED, TOKEN

BATCHED: tuple[Any, ...] = (
    "ключ",
    'quo"te',
    "</script>",
    '"entitled":true,"reason":"entitled"',
    "a\n",
    "",
    None,
    5,
    True,
    ["a"],
    {},
    "x" * 201,
)
CUSTOMERS = (*REMEMBERED, "cus_absent", "cus_1" * 52, "-", "", ".", "..", "cus%5F1", "cus_1;a", "c%C3%BCs", "%", "%00")
KEYS = ("a", "b.c~d_e-f", "feature-7", ".", "..", "...", "%61", "a%2Fb", "a+b", "a/b", "", "é", "%", "%00", "a;b", "a:b", "x" * 200, "x" * 201)  # fmt: skip
QUERIES = (
    "", "?", "?default=allow", "?default=deny", "?default=maybe", "?wait=0", "?wait=700ms", "?a=b", "?&", "#", "#a", "?#", ";", "?default=allow&default=deny",
)  # fmt: skip
LISTED = ("&limit=1", "&limit=0", "&limit=100", "&limit=2&starting_after=ent_cus_1_a", "&ending_before=ent_cus_1_b", "&limit=02", "&expand[]=data.feature", "&customer=cus_1", "&starting_after=nothing", "&", "&limit=%31", "&x")  # fmt: skip
METHODS = ("HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE", "get", "GETT", "Get", "PRI", "M-SEARCH", "QUERY", "SOURCE", "")  # fmt: skip
VERSIONS = (
    "HTTP/1.0",
    "HTTP/1.2",
    "HTTP/2.0",
    "http/1.1",
    "HTTP/1.1 ",
    "HTTP/01.1",
    "HTTP/1.",
    "",
    "RTSP/1.0",
    "ICE/1.0",
)
HOSTS = (
    "localhost", "localhost:7420", "LOCALHOST", "localhost.", "127.0.0.1", "127.0.0.1:80", "[::1]", "[::1]:7420", "::1", "evil.example", "a@localhost", "localhost:",
    "localhost:x", "localhost, localhost", "local host", "", "*", "//", "localhost/..",
)  # fmt: skip
FIELDS = sorted({str(value) for name, value in vars(hdrs).items() if name.isupper() and isinstance(value, str)})
"""The name of every field that aiohttp knows, and some more."""

VALUES = {
    "Accept": ("*/*", "application/json", "text/event-stream"),
    "Accept-Encoding": ("gzip", "gzip, deflate, br", "identity;q=0"),
    "Authorization": (
        f"Bearer {TOKEN}", f"bearer {TOKEN}", f"Bearer  {TOKEN}", f"Basic {base64.b64encode(TOKEN.encode() + b':').decode()}", "Bearer", "Basic !", "Bearer é",
    ),
    "Cache-Control": (
        "max-age=600", "max-stale", "foo", "no-cache", "max-age=0", "max-age=5", "only-if-cached", "only-if-cached, max-stale=9", "stale-if-error=5", "max-age=", "max-age=x",
        "no-store", ",", "max-age=1,max-age=1000", '"', "no-transform, max-age=60",
    ),
    "Connection": (
        "keep-alive", "Keep-Alive", "close", "close, keep-alive", "keep-alive, close", "Keep-Alive, TE", "upgrade", "Upgrade, HTTP2-Settings", "TE", "foo", "keep-alive,",
    ),
    "Proxy-Connection": ("keep-alive", "close", "upgrade"),
    "Content-Encoding": ("identity", "gzip", "br", "foo"),
    "Content-Length": ("0", "5", "+5", "-1", "0x5", "5, 5", "05", "00", "1e1", " 5", "99999999999999999999", "5\t", "२"),
    "Content-Type": ("application/json", "text/plain; charset=utf-8", "multipart/form-data; boundary=x", "é"),
    "Expect": ("100-continue", "100-Continue", "banana"),
    "If-None-Match": ("*", 'W/"x"', '"x"', "x"),
    "Keep-Alive": ("timeout=5", "x"),
    "Range": ("bytes=0-1",),
    "Stripe-Account": ("acct_1", "acct_2", "acct_", "cus_1", "acct_1, acct_1", "ACCT_1"),
    "Stripe-Context": ("acct_1",),
    "Stripe-Version": ("2026-10-28.dahlia",),
    "TE": ("trailers",),
    "Trailer": ("X",),
    "Transfer-Encoding": ("chunked", "Chunked", "identity", "gzip", "chunked, chunked", "chunked, identity", "xchunked", "\x0bchunked"),
    "Upgrade": ("websocket", "h2c", "foo"),
    "HTTP2-Settings": ("AAMAAABkAARAAAAAAAIAAAAA",),
    "Sec-WebSocket-Version": ("13",),
    "Sec-WebSocket-Key1": ("x",),
    "X-Request-Id": ("abc 1", "a" * 200, "a" * 201, "é", "a\tb", "a:b"),
    "X-Forwarded-Host": ("evil.example",),
    "User-Agent": ("curl/8", "python-requests/2.32"),
}  # fmt: skip
"""What fields may say that somebody here listens to."""

PLAIN = ("Accept", "Accept-Encoding", "Authorization", "Cache-Control", "Stripe-Account", "User-Agent", "X-Request-Id", "Keep-Alive", "Stripe-Version")  # fmt: skip
ODD = ("X-é", "A B", "", "A:", ":A", "x_y", "X!#$%&'*+.^`|~", "Host ", " Host", "Content-Length ", "Content_Length", "a" * 300, "\x00", "Sec-WebSocket-Key1")  # fmt: skip
ODDITIES = (
    b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\x00", b"\t", b" ", b":", b"\x0b", b"\x7f", b"\x80", b"\xff", b"%", b"%00", b"%2e%2e", b"//", b"/", b"?", b"#", b";", b"@",
    b"HTTP/1.1", b"\r\n ", b"\r\n\t", b"\n\n", b"GET ", b"0\r\n\r\n", b"\r\nContent-Length: 5", b"\r\nTransfer-Encoding: chunked", b"\r\nHost: localhost",
    b"\r\nConnection: close", b"http://localhost", b"*", b"\r\nA:", b"\r\nA: ", b"\r\nA:b", b"\r\nA:\tb", b"\r\nA: b ", b"\r\nA:  b",
)  # fmt: skip
BODIES = (
    b"", b"{}", b'{"checks":[]}', b'{"checks":[{"customer":"cus_1","lookup_key":"a"},{"customer":"cus_many","lookup_key":"b"}]}', b"hello", b"GET / HTTP/1.1\r\n\r\n",
    b'{"checks":[{"customer":"cus_absent","lookup_key":"a"}]}', b'{"context":{"targetingKey":"cus_1"}}', b"{", b"x" * 3000,
    b"GET /v1/customers/cus_1/entitlements/a HTTP/1.1\r\nHost: localhost\r\n\r\n",
)  # fmt: skip

HIT = (
    b"GET /v1/customers/cus_1/entitlements/a HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n\r\n"
    % TOKEN.encode()
)
STEPS = (0.0004, 0.001, 0.001, 0.1, 0.1, 0.6543, 1.0, 1.0, 7.9995, 60.0)


EVENTS = ("news", "list", "feed", "watermark", "token")


@dataclass(frozen=True)
class Case:
    """What comes on one connection, and how it ends.

    Before each piece so many seconds go by, or one of ``EVENTS`` happens. After the last, so many seconds are waited, and
    then the other side is gone.
    """

    pieces: tuple[tuple[float | str, bytes], ...]
    waits: float = 0.0


def case(random: Random) -> Case:
    """Return something that a caller may send."""
    stream = b"".join(requests(random))
    if random.random() < 0.25:
        stream = spoilt(random, stream)
    pieces = [(before(random), piece) for piece in cut(random, stream)]
    return Case(tuple(pieces), 3.3 if random.random() < 0.1 else 0.0)


def before(random: Random) -> float | str:
    """Return what happens before a piece: nothing, mostly."""
    dice = random.random()
    if dice < 0.02:
        return random.choice(EVENTS)
    return random.choice(STEPS) if dice < 0.08 else 0.0


def requests(random: Random) -> list[bytes]:
    """Return one request after the other, some of them more than once."""
    found = [request(random) for _ in range(random.choice((1, 1, 1, 2, 2, 3)))]
    if random.random() < 0.3:
        found.insert(random.randrange(len(found) + 1), random.choice(found))
    if random.random() < 0.3:
        found.append(HIT)
    return found


def request(random: Random) -> bytes:
    """Return a request, plain or strange."""
    is_plain = random.random() < 0.7
    method, target, body = random.choice(KINDS)(random, is_plain)
    version = "HTTP/1.1"
    if not is_plain and random.random() < 0.1:
        method = random.choice(METHODS)
    if not is_plain and random.random() < 0.05:
        version = random.choice(VERSIONS)
    host = "localhost" if random.random() < 0.9 else random.choice(HOSTS)
    fields = [("Host", host)] if is_plain or random.random() < 0.97 else []
    if random.random() < 0.8:
        fields.append(("Authorization", f"Bearer {TOKEN}"))
    fields += [field(random, is_plain=is_plain) for _ in range(random.choice((0, 0, 0, 1, 1, 2)))]
    if is_plain:
        fields = list(dict(fields).items())
    if body or (not is_plain and random.random() < 0.1):
        fields += framing(random, body, is_plain=is_plain)
        body = chunked(random, body) if any(name == "Transfer-Encoding" for name, _ in fields) else body
    if not is_plain:
        random.shuffle(fields)
    colon = ": " if is_plain else random.choice((": ", ": ", ": ", ":", ":  ", ":\t", " : "))
    head = f"{method} {target} {version}\r\n" + "".join(f"{name}{colon}{value}\r\n" for name, value in fields)
    return (head + "\r\n").encode() + body


def field(random: Random, *, is_plain: bool) -> tuple[str, str]:
    """Return a field that a client sends, or that aiohttp knows, or that nobody should send."""
    if is_plain:
        name = random.choice(PLAIN)
        return name, random.choice(VALUES[name])
    dice = random.random()
    if dice < 0.6:
        name = random.choice(tuple(VALUES))
        return cased(random, name), random.choice(VALUES[name])
    if dice < 0.9:
        return random.choice(FIELDS), random.choice(("x", "1", "close", "é", "", "a, b", "chunked"))
    return random.choice(ODD), random.choice(("x", "5", "close", ""))


def cased(random: Random, name: str) -> str:
    """Return a field's name as some write it."""
    return random.choice((name, name, name.lower(), name.upper()))


def framing(random: Random, body: bytes, *, is_plain: bool) -> list[tuple[str, str]]:
    """Return fields that say how long a body is; not always the truth."""
    length = ("Content-Length", str(len(body)))
    if is_plain or random.random() < 0.6:
        return [length]
    return random.choice(
        (
            [("Transfer-Encoding", "chunked")],
            [("Transfer-Encoding", "chunked"), length],
            [length, length],
            [length, ("content-length", "3")],
            [("Content-Length", str(len(body) + 1))],
            [("Content-Length", str(max(0, len(body) - 1)))],
            [],
        )
    )


def chunked(random: Random, body: bytes) -> bytes:
    """Return a body as ``Transfer-Encoding: chunked`` has it, mostly."""
    pieces = [piece for piece in cut(random, body) if piece]
    last = random.choice((b"0\r\n\r\n", b"0\r\n\r\n", b"0\r\nA: b\r\n\r\n", b"0\n\n", b""))
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + last


def spoilt(random: Random, stream: bytes) -> bytes:
    """Return ``stream`` with a few mistakes in it."""
    found = bytearray(stream)
    for _ in range(random.choice((1, 1, 2, 4))):
        place = random.randrange(len(found) + 1)
        until = min(len(found), place + random.choice((1, 1, 2, 5, 30)))
        match random.randrange(6):
            case 0 if place < len(found):
                found[place] ^= 1 << random.randrange(8)
            case 1:
                found[place:place] = random.choice(ODDITIES)
            case 2:
                del found[place:until]
            case 3:
                found[place:place] = found[place:until]
            case 4:
                lines = bytes(found).split(b"\r\n")
                lines.insert(random.randrange(len(lines)), random.choice(lines))
                found = bytearray(b"\r\n".join(lines))
            case _:
                found[place:until] = random.choice(ODDITIES)
    return bytes(found)


def cut(random: Random, stream: bytes) -> list[bytes]:
    """Return ``stream`` in the pieces in which it arrives."""
    how = random.random()
    if how < 0.5:
        return [stream]
    if how < 0.75:  # as a client that waits for each answer
        parts = stream.replace(b"\r\n\r\n", b"\r\n\r\n\0cut\0").split(b"\0cut\0")
        return [part for part in parts if part]
    if how < 0.77 and len(stream) < 400:
        return [stream[place : place + 1] for place in range(len(stream))]
    places = sorted(random.randrange(len(stream) + 1) for _ in range(random.choice((1, 1, 2, 3))))
    if random.random() < 0.3 and (end := stream.find(b"\r\n\r\n")) >= 0:
        places = sorted([*places, end + random.randrange(5)])
    return [stream[begin:end] for begin, end in zip([0, *places], [*places, len(stream)], strict=True) if begin < end]


Kind = tuple[str, str, bytes]


def a_check(random: Random, is_plain: bool) -> Kind:  # noqa: FBT001 -- all kinds are called alike
    customer, key = (
        random.choice(CUSTOMERS[:9] if is_plain else CUSTOMERS),
        random.choice(KEYS[:4] if is_plain else KEYS),
    )
    query = "" if is_plain else random.choice(QUERIES)
    prefix = (
        random.choice(("", "", "", "", "http://localhost", "http://evil.example", "/", "localhost:80", "a/.."))
        if not is_plain
        else ""
    )
    return "GET", f"{prefix}/v1/customers/{customer}/entitlements/{key}{query}", b""


def a_list(random: Random, is_plain: bool) -> Kind:  # noqa: FBT001 -- all kinds are called alike
    customer = random.choice(CUSTOMERS[:9] if is_plain else CUSTOMERS)
    return "GET", f"/v1/customers/{customer}/entitlements{'' if is_plain else random.choice(('', '/', '?a', '?'))}", b""


def stripes_list(random: Random, is_plain: bool) -> Kind:  # noqa: FBT001 -- all kinds are called alike
    customer = random.choice(CUSTOMERS[:9] if is_plain else CUSTOMERS)
    more = "".join(random.choice(LISTED[:5] if is_plain else LISTED) for _ in range(random.choice((0, 1, 1, 2))))
    if random.random() < 0.2:
        return (
            "GET",
            "/v1/entitlements/active_entitlements/" + random.choice(("ent_cus_1_a", "ent_nobody", "-", "%65")),
            b"",
        )
    return "GET", f"/v1/entitlements/active_entitlements?customer={customer}{more}", b""


def a_batch(random: Random, is_plain: bool) -> Kind:  # noqa: FBT001 -- all kinds are called alike
    body = checks(random, is_plain=is_plain) if random.random() < 0.8 else random.choice(BODIES)
    return "POST", "/v1/checks" + ("" if is_plain else random.choice(("", "?default=allow", "?x", "/"))), body


def checks(random: Random, *, is_plain: bool) -> bytes:
    """Return the body of a batch: mostly about customers who are remembered; else about any, or spoilt."""
    found: list[Any] = []
    for _ in range(random.choice((0, 1, 2, 3, 10))):
        customer = random.choice(("cus_1", "cus_many", "cus_new") if random.random() < 0.9 else CUSTOMERS)
        found.append({"customer": customer, "lookup_key": random.choice(KEYS[:4] if is_plain else KEYS + BATCHED)})
        if not is_plain and random.random() < 0.1:
            found[-1] = random.choice(([], "a", None, {}, {**found[-1], "account": "acct_1"}, {**found[-1], "a": 1}))
    return json.dumps({"checks": found}, ensure_ascii=random.random() < 0.5).encode()


def anything(random: Random, is_plain: bool) -> Kind:  # noqa: FBT001 -- all kinds are called alike
    target = random.choice(
        (
            "/v1/customers/cus_1/explain", "/v1/changes", "/", "/nowhere", "*", "/v1/customers/cus_1/refresh", "localhost:443", "//v1/checks", "/v1//customers/cus_1/entitlements/a",
            "/v1/customers/../customers/cus_1/entitlements/a", "/v1/customers/%2e%2e/entitlements/a", "/%00", "/v1/customers/cus_1/entitlements/a HTTP/1.1 ", "/" + "a" * 9000,
            "/ofrep/v1/configuration", "http://", "/v1/customers/cus_1/entitlements/a\t", "é", "/v1/customers/cus_1/entitlements/a\\b", "http://[::1]/v1/checks", "http://[/", "?",
        )[: 7 if is_plain else None]
    )  # fmt: skip
    return random.choice(("GET", "GET", "HEAD", "OPTIONS")), target, b""


def a_post(random: Random, is_plain: bool) -> Kind:  # noqa: FBT001 -- all kinds are called alike
    target = random.choice(("/v1/customers/cus_1/refresh", "/v1/customers/cus_1/refresh?wait=0", "/ofrep/v1/evaluate/flags/a", "/v1/customers/cus_1/entitlements/a", "/nowhere"))  # fmt: skip
    return "POST", target, random.choice(BODIES[:3] if is_plain else BODIES)


def hit(random: Random, is_plain: bool) -> Kind:  # noqa: FBT001 -- all kinds are called alike
    return "GET", f"/v1/customers/{random.choice(('cus_1', 'cus_many'))}/entitlements/{random.choice(KEYS[:4])}", b""


KINDS = (
    hit,
    hit,
    hit,
    hit,
    hit,
    hit,
    a_check,
    a_check,
    a_list,
    a_list,
    stripes_list,
    stripes_list,
    a_batch,
    a_batch,
    anything,
    a_post,
)
