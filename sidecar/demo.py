"""
A Stripe small enough to read; imports nothing of ours.

`FakeStripe` remembers customers, features and entitlements and answers the entitlement calls of Stripe's API in
Stripe's words: cursors, `expand`, permissions, error bodies, headers. `serving` puts it on a port. It is the upstream
of `make demo` and of the tests, and the oracle for what the official SDKs are told. From top to bottom:

    what can be asked     OPERATIONS, and Seen: one request as it arrived
    what can go wrong     Fault, and Refusal: a no as Stripe says it
    what Stripe knows     FakeStripe.grant, .revoke, .held: every change of entitlements goes through the first two
    what it answers       from _receive down to the response
    how it is served      .app, serving, and under /demo a remote control for a reader's own curl
    what pages are made of

A request is noted in `requests`, shown to `on_request`, and its key and account are checked; only then may a fault
strike, so a 401 uses up neither `after` nor `times`. An answer is made at once, however late `slow` and `hang` send it.
"""

import asyncio
import base64
import binascii
import hashlib
import math
from collections import ChainMap, Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote

import orjson
from aiohttp import web

Json = dict[str, Any]
Params = Mapping[str, str]
Pairs = Iterable[tuple[str, str]]
Clock = Callable[[], float]

VERSION = "2026-10-28.endive"
ENTITLEMENTS = "/v1/entitlements/active_entitlements"
FEATURES = "/v1/entitlements/features"
CURSORS = ("starting_after", "ending_before")
NOTICEABLE = 2.0  # seconds: what /demo/break/slow adds
PARTING = 0.05  # seconds that requests under way get when the server closes


# ---- what can be asked


class Operation(NamedTuple):
    name: str
    permission: str = ""
    parameters: frozenset[str] = frozenset()
    expandable: str = ""


READ, WRITE = "rak_entitlement_read", "rak_entitlement_write"
PAGED = frozenset({"limit", *CURSORS})
OPERATIONS = {
    ("GET", ENTITLEMENTS): Operation("list", READ, PAGED | {"customer"}, "data.feature"),
    ("GET", f"{ENTITLEMENTS}/*"): Operation("retrieve", READ, expandable="feature"),
    ("GET", FEATURES): Operation("features", READ, PAGED | {"archived", "lookup_key"}),
    ("GET", f"{FEATURES}/*"): Operation("feature", READ),
    ("POST", FEATURES): Operation("create_feature", WRITE, frozenset({"lookup_key", "name", "metadata"})),
    ("POST", f"{FEATURES}/*"): Operation("update_feature", WRITE, frozenset({"name", "active", "metadata"})),
}
UNKNOWN = Operation("unknown")


def _operation(method: str, path: str) -> Operation:
    parent, _, last = path.rpartition("/")
    return OPERATIONS.get((method, f"{parent}/*")) or OPERATIONS.get((method, path), UNKNOWN) if last else UNKNOWN


@dataclass(slots=True)
class Seen:
    """One request as it arrived; `status` comes with the answer and stays None where there was none."""

    method: str
    path: str
    query: Params
    account: str | None
    request_id: str
    at: float
    headers: Params = field(repr=False)  # they hold the key
    status: int | None = None

    @property
    def operation(self) -> str:
        """The name in OPERATIONS, or "unknown"."""
        return _operation(self.method, self.path).name


# ---- what can go wrong


class Fault(StrEnum):
    ERROR = "error"  # 500 in Stripe's words
    THROTTLED = "throttled"  # 429 from the limiter
    LOCK_TIMEOUT = "lock_timeout"  # 429 that is no limiter's
    HTML = "html"  # 502 from something in front of Stripe
    NOT_JSON = "not_json"  # 200 from something that is not Stripe
    HALF = "half"  # the whole length announced, half the body sent, the connection closed
    HANG = "hang"  # nothing, until mended
    SLOW = "slow"  # the true answer, `delay` seconds late
    RESET = "reset"  # the connection closed without an answer
    ENDLESS = "endless"  # every list empty, and yet more to come
    REPEATED = "repeated"  # every list its first page, whatever the cursor, and more to come
    OTHER_MODE = "other_mode"  # every object of the other mode


class Refusal(Exception):
    def __init__(self, status: int, message: str, code: str = "", param: str = "", **headers: str) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def body(self, log_url: str) -> Json:
        error = {
            "code": self.code,
            "doc_url": self.code and f"https://stripe.com/docs/error-codes/{self.code.replace('_', '-')}",
            "message": str(self),
            "param": self.param,
            "request_log_url": log_url,
            "type": "api_error" if self.status >= 500 else "invalid_request_error",
        }
        return {"error": {name: value for name, value in error.items() if value}}


BUSY = (
    "This object can't be accessed right now because another API request or Stripe process is currently accessing it."
)
REFUSED = {
    Fault.ERROR: Refusal(500, "An unknown error occurred"),
    Fault.THROTTLED: Refusal(429, "Too many requests.", "rate_limit", Stripe_Rate_Limited_Reason="endpoint-rate"),
    Fault.LOCK_TIMEOUT: Refusal(
        429, BUSY, "lock_timeout", Stripe_Should_Retry="true", Request_Id=""
    ),  # Stripe sends none here
}
FOREIGN = {
    Fault.HTML: (502, b"<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"),
    Fault.NOT_JSON: (200, b"<!doctype html><title>Sign in</title><p>Sign in to use this network."),
}


@dataclass(slots=True)
class _Trouble:
    fault: Fault
    after: int
    until: float
    delay: float
    operation: str | None
    met: int = 0
    mended: asyncio.Event = field(default_factory=asyncio.Event)

    def strikes(self, seen: Seen) -> bool:
        if self.operation not in (None, seen.operation):
            return False
        self.met += 1
        return self.after < self.met <= self.until


# ---- what Stripe knows


@dataclass(slots=True)
class _Account:
    features: dict[str, Json] = field(default_factory=dict)  # by id, oldest first
    customers: dict[str, dict[str, Json]] = field(default_factory=dict)  # their entitlements by id, oldest first

    def active(self, lookup_key: str) -> Json | None:
        """Find the feature of this key: one is active at most, any number may be archived."""
        return next((f for f in self.features.values() if f["active"] and f["lookup_key"] == lookup_key), None)


class FakeStripe:
    """Stripe's entitlements, with a memory, switches to break it, and a record of who asked."""

    def __init__(
        self, *, key: str = "sk_test_demo", permissions: frozenset[str] | None = None, clock: Clock | None = None
    ) -> None:
        self.key = key
        self.permissions = permissions or frozenset()  # of a restricted key, rk_; a secret key may do everything
        self.clock = clock  # for Seen.at; None: the event loop's
        self.other_mode_customers: set[str] = set()  # strangers here, known to the key of the other mode
        self.on_request: Callable[[Seen], None] | None = None
        self.requests: deque[Seen] = deque(maxlen=100_000)
        self._accounts: dict[str | None, _Account] = {None: _Account()}
        self._trouble: _Trouble | None = None
        self._made = 0

    @property
    def livemode(self) -> bool:
        return "_live_" in self.key

    @property
    def fault(self) -> Fault | None:
        return self._trouble.fault if self._trouble else None

    def add_customer(self, customer: str, *, account: str | None = None) -> None:
        """Make the customer known, and the connected account; what it holds already stays."""
        self._accounts.setdefault(account, _Account()).customers.setdefault(customer, {})

    def delete_customer(self, customer: str, *, account: str | None = None) -> None:
        for lookup_key in set(self.held(customer, account=account)):
            self.revoke(customer, lookup_key, account=account)
        self._customers(account).pop(customer, None)

    def grant(self, customer: str, lookup_key: str, *, account: str | None = None, new_feature: bool = False) -> str:
        """
        Entitle the customer to the active feature of this key and give the entitlement's id; twice is once.

        With `new_feature` another feature takes over the key and the old one is archived. Stripe allows that, and a
        customer who held the old one then holds both.
        """
        self.add_customer(customer, account=account)
        known, held = self._accounts[account], self._accounts[account].customers[customer]
        feature = known.active(lookup_key)
        if feature and new_feature:
            feature["active"] = False
        if not feature or new_feature:
            feature = self._add_feature(known, lookup_key)
        for id_, entitlement in held.items():
            if entitlement["feature"] == feature["id"]:
                return id_
        new = self._object("ent", "active_entitlement", lookup_key) | {"feature": feature["id"]}
        held[new["id"]] = new
        return str(new["id"])

    def revoke(self, customer: str, lookup_key: str, *, account: str | None = None) -> int:
        """Take every entitlement of this key away and say how many there were."""
        held = self._customers(account).get(customer, {})
        gone = [id_ for id_, entitlement in held.items() if entitlement["lookup_key"] == lookup_key]
        for id_ in gone:
            del held[id_]
        return len(gone)

    def held(self, customer: str, *, account: str | None = None) -> list[str]:
        """List the customer's lookup keys, newest first: the truth that answers are compared with."""
        return [e["lookup_key"] for e in reversed(self._customers(account).get(customer, {}).values())]

    def _customers(self, account: str | None) -> dict[str, dict[str, Json]]:
        return self._accounts[account].customers if account in self._accounts else {}

    def _add_feature(self, account: _Account, lookup_key: str) -> Json:
        new = self._object("feat", "feature", lookup_key) | {"active": True, "metadata": {}, "name": lookup_key}
        account.features[new["id"]] = new
        return new

    def _object(self, prefix: str, kind: str, lookup_key: str) -> Json:
        id_ = f"{prefix}_{'' if self.livemode else 'test_'}61{self._scrambled(30)}"
        return {"id": id_, "object": f"entitlements.{kind}", "livemode": self.livemode, "lookup_key": lookup_key}

    def _scrambled(self, length: int) -> str:
        """Count on, in letters and digits that sort by nothing, as Stripe's do."""
        self._made += 1
        return base64.b64encode(hashlib.sha256(b"%d" % self._made).digest(), b"xX")[:length].decode()

    # the switches

    def break_with(
        self,
        fault: Fault | None,
        *,
        after: int = 0,
        times: int | None = None,
        delay: float = 0.0,
        operation: str | None = None,
    ) -> None:
        """Let `after` requests pass, then spoil `times` of them, or all; None mends, and lets go what hangs."""
        if self._trouble:
            self._trouble.mended.set()
        until = math.inf if times is None else after + times
        self._trouble = _Trouble(fault, after, until, delay, operation) if fault else None

    def count(self, operation: str | None = None) -> int:
        """Count the requests still remembered."""
        return sum(operation in (None, seen.operation) for seen in self.requests)

    # ---- what it answers

    async def _receive(self, request: web.Request) -> web.StreamResponse:
        form = parse_qsl((await request.read()).decode(errors="replace"), keep_blank_values=True)
        seen, trouble, fault = self._note(request), None, None
        try:
            account = self._admit(seen)
            if self._trouble and self._trouble.strikes(seen):
                trouble, fault = self._trouble, self._trouble.fault
            answer = self._answer(account, seen, [*request.query.items(), *form], fault)
        except Refusal as refusal:
            answer = refusal
        response = self._worded(seen, answer, fault)
        if trouble and fault is Fault.HANG:
            await trouble.mended.wait()
        if trouble and fault is Fault.SLOW:
            await asyncio.sleep(trouble.delay)
        if fault is Fault.RESET:
            request.protocol.force_close()
        else:
            seen.status = response.status
        return response

    def _note(self, request: web.Request) -> Seen:
        method, path, headers = request.method, request.path, request.headers
        at = (self.clock or asyncio.get_running_loop().time)()
        request_id = f"req_{self._scrambled(14)}"
        seen = Seen(method, path, request.query, headers.get("Stripe-Account"), request_id, at, headers)
        self.requests.append(seen)
        if self.on_request:
            self.on_request(seen)
        return seen

    def _admit(self, seen: Seen) -> _Account:
        key = _key(seen.headers.get("Authorization", ""))
        if key != self.key:
            message = f"Invalid API Key provided: {_masked(key)}" if key else "You did not provide an API key."
            raise Refusal(401, message, WWW_Authenticate='Basic realm="Stripe"')
        if seen.account not in self._accounts:
            message = f"does not have access to account '{seen.account}' (or that account does not exist)."
            raise Refusal(403, f"The provided key '{_masked(key)}' {message}", "account_invalid")
        needed = _operation(seen.method, seen.path).permission
        if needed and key.startswith("rk_") and needed not in self.permissions:
            message = (
                f"The provided key '{_masked(key)}' does not have the required permissions for this endpoint on account "
                f"'{seen.account or 'acct_demo'}'. Having the '{needed}' permission would allow this request to continue."
            )
            raise Refusal(403, message)
        return self._accounts[seen.account]

    def _answer(self, account: _Account, seen: Seen, pairs: Pairs, fault: Fault | None) -> Json | Refusal:
        if fault in REFUSED:
            return REFUSED[fault]
        operation = _operation(seen.method, seen.path)
        if operation is UNKNOWN:
            raise Refusal(404, f"Unrecognized request URL ({seen.method}: {seen.path}). See https://stripe.com/docs.")
        if fault is Fault.REPEATED:
            pairs = [pair for pair in pairs if pair[0] not in CURSORS]
        answer = self._truth(account, seen, _checked(pairs, operation))
        if answer["object"] != "list":
            return answer
        if fault is Fault.ENDLESS:
            return answer | {"data": [], "has_more": True}
        return answer | {"has_more": True} if fault is Fault.REPEATED else answer

    def _truth(self, account: _Account, seen: Seen, params: Params) -> Json:
        id_ = seen.path.rpartition("/")[2]
        match seen.operation:
            case "list":
                page = _page(ENTITLEMENTS, "active entitlement", self._held(account, params), params)
                return page | {"data": [_inlined(account, e, params) for e in page["data"]]}
            case "retrieve":
                everybodys = ChainMap(*account.customers.values())
                return _inlined(account, _found("active entitlement", everybodys, id_), params)
            case "features":
                return _page(FEATURES, "feature", _filtered(account.features, params), params)
            case "feature":
                return _found("feature", account.features, id_)
            case "create_feature":
                lookup_key, _ = _required(params, "lookup_key"), _required(params, "name")
                _check_free(account, lookup_key)
                return _updated(account, self._add_feature(account, lookup_key), params)
            case _:  # update_feature
                return _updated(account, _found("feature", account.features, id_), params)

    def _held(self, account: _Account, params: Params) -> Mapping[str, Json]:
        customer = _required(params, "customer")
        if customer in account.customers:
            return account.customers[customer]
        message = f"No such customer: '{customer}'"
        if customer in self.other_mode_customers:
            other, ours = ("test", "live") if self.livemode else ("live", "test")
            message += f"; a similar object exists in {other} mode, "
            message += f"but a {ours} mode key was used to make this request."
        raise Refusal(400, message, "resource_missing", "customer")

    def _worded(self, seen: Seen, answer: Json | Refusal, fault: Fault | None) -> web.Response:
        if fault in FOREIGN:
            status, page = FOREIGN[fault]
            return web.Response(status=status, body=page, content_type="text/html")
        status, headers = 200, {"Request-Id": seen.request_id, "Content-Type": "application/json"}
        headers["Stripe-Version"] = seen.headers.get("Stripe-Version", VERSION)
        if isinstance(answer, Refusal):
            status, headers = answer.status, {n: v for n, v in (headers | answer.headers).items() if v}
            logs = f"https://dashboard.stripe.com/{'' if self.livemode else 'test/'}logs"
            answer = answer.body(f"{logs}/{seen.request_id}")
        body = orjson.dumps(answer, option=orjson.OPT_INDENT_2)
        if fault is Fault.OTHER_MODE:
            modes = b'"livemode": true', b'"livemode": false'
            body = body.replace(*(modes if self.livemode else modes[::-1]))
        if fault is not Fault.HALF:
            return web.Response(status=status, body=body, headers=headers)
        headers["Content-Length"] = str(len(body))
        half = web.Response(status=status, body=body[: len(body) // 2], headers=headers)
        half.force_close()
        return half

    # ---- how it is served

    def app(self) -> web.Application:
        """Build the application anew; the state stays here, so Stripe can go away and come back."""
        app = web.Application()
        for path in ("/demo", "/demo/{rest:.*}"):
            app.router.add_route("*", path, self._control)
        app.router.add_route("*", "/{rest:.*}", self._receive)
        return app

    async def _control(self, request: web.Request) -> web.Response:
        """Do what the path says and show how things stand; never broken, never counted, no key asked."""
        status = 200
        match [request.method, *map(unquote, request.rel_url.raw_path.split("/")[2:])]:
            case ["GET"]:
                pass
            case ["POST", "grant", customer, lookup_key]:
                self.grant(customer, lookup_key)
            case ["POST", "revoke", customer, lookup_key]:
                self.revoke(customer, lookup_key)
            case ["POST", "break", fault] if fault in list(Fault):
                self.break_with(Fault(fault), delay=NOTICEABLE)
            case ["POST", "mend"]:
                self.break_with(None)
            case _:
                status = 404
        return web.json_response(self._overview() | ({"faults": list(Fault)} if status == 404 else {}), status=status)

    def _overview(self) -> Json:
        customers = {customer: self.held(customer) for customer in self._customers(None)}
        return {"customers": customers, "fault": self.fault, "requests": Counter(s.operation for s in self.requests)}


@asynccontextmanager
async def serving(stripe: FakeStripe, *, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """Serve and yield the base URL; port 0 takes a free one. Closing waits for nobody, least of all for what hangs."""
    runner = web.AppRunner(stripe.app(), access_log=None, handler_cancellation=True, shutdown_timeout=PARTING)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield f"http://{host}:{runner.addresses[0][1]}"
    finally:
        for _ in range(3):  # turns of the loop that a connection needs to be accepted; asyncio trips over half of one
            await asyncio.sleep(0)
        await runner.cleanup()


# ---- what pages are made of


def _key(authorization: str) -> str:
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() != "basic":
        return value.strip() if scheme.lower() == "bearer" else ""
    try:
        return base64.b64decode(value).decode().partition(":")[0]
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _masked(key: str) -> str:
    return f"{key[:8]}***" if len(key) > 8 else "***"


def _checked(pairs: Pairs, operation: Operation) -> Params:
    params = {}
    for name, value in pairs:
        plain = name.partition("[")[0]  # of expand[], expand[0], metadata[colour]
        if plain not in operation.parameters | {"expand"}:
            raise Refusal(400, f"Received unknown parameter: {name}", "parameter_unknown", name)
        if not value and plain != "metadata":
            raise Refusal(400, f"You passed an empty string for '{name}'.", "parameter_invalid_empty", name)
        if plain == "expand" and value != operation.expandable:
            raise Refusal(400, f"This property cannot be expanded ({value}).")
        params["expand" if plain == "expand" else name] = value
    return params


def _required(params: Params, name: str) -> str:
    if name not in params:
        raise Refusal(400, f"Missing required param: {name}.", "parameter_missing", name)
    return params[name]


def _found(kind: str, known: Mapping[str, Json], id_: str) -> Json:
    if id_ not in known:
        raise Refusal(404, f"No such {kind}: '{id_}'", "resource_missing", "id")
    return known[id_]


def _inlined(account: _Account, entitlement: Json, params: Params) -> Json:
    return entitlement | {"feature": account.features[entitlement["feature"]]} if "expand" in params else entitlement


def _page(url: str, kind: str, known: Mapping[str, Json], params: Params) -> Json:
    """Cut a page from objects that are kept oldest first; before a cursor, the page is the one nearest to it."""
    ids, limit = list(known)[::-1], _limit(params)
    start, stop = 0, limit
    used = [cursor for cursor in CURSORS if cursor in params]
    if len(used) > 1:
        raise Refusal(400, f"You can only specify one of these parameters: {', '.join(used)}.", "parameters_exclusive")
    for cursor in used:
        if params[cursor] not in known:
            raise Refusal(400, f"No such {kind}: '{params[cursor]}'", "resource_missing", cursor)
        place = ids.index(params[cursor])
        start, stop = (place + 1, place + 1 + limit) if cursor == "starting_after" else (max(0, place - limit), place)
    more = start > 0 if used == ["ending_before"] else stop < len(ids)
    return {"object": "list", "data": [known[id_] for id_ in ids[start:stop]], "has_more": more, "url": url}


def _limit(params: Params) -> int:
    text = params.get("limit", "10")
    if not text.isdecimal() or len(text) > 18:
        raise Refusal(400, f"Invalid integer: {text}", "parameter_invalid_integer", "limit")
    if not 1 <= int(text) <= 100:
        bound = "greater than or equal to 1" if int(text) < 1 else "less than or equal to 100"
        message = f"This value must be {bound} (it currently is '{text}')."
        raise Refusal(400, message, "parameter_invalid_integer", "limit")
    return int(text)


def _filtered(features: Mapping[str, Json], params: Params) -> Mapping[str, Json]:
    active, keys = not _is_true(params, "archived"), {params["lookup_key"]} if "lookup_key" in params else None
    return {id_: f for id_, f in features.items() if f["active"] is active and (not keys or f["lookup_key"] in keys)}


def _is_true(params: Params, name: str) -> bool:
    if params.get(name, "false") not in ("true", "false"):
        raise Refusal(400, f"Invalid boolean: {params[name]}", param=name)
    return params.get(name) == "true"


def _updated(account: _Account, feature: Json, params: Params) -> Json:
    if "active" in params:
        active = _is_true(params, "active")
        if active and not feature["active"]:
            _check_free(account, feature["lookup_key"])
        feature["active"] = active
    feature["name"] = params.get("name", feature["name"])
    noted = {name[len("metadata[") : -1]: value for name, value in params.items() if name.startswith("metadata[")}
    feature["metadata"] = {name: value for name, value in (feature["metadata"] | noted).items() if value}
    return feature


def _check_free(account: _Account, lookup_key: str) -> None:
    if account.active(lookup_key):
        message = f"A feature has the lookup key '{lookup_key}' already."
        raise Refusal(400, message, "resource_already_exists", "lookup_key")
