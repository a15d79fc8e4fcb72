"""
A request from its arrival to the response.

It is noted in `requests`, shown to `on_request`, and its key and account are checked; only then may a fault strike, so
a 401 uses up neither `after` nor `times`. An answer is made at once, however late `slow` and `hang` send it.
"""

import asyncio
import base64
import binascii
import socket
import struct
from collections import ChainMap
from collections.abc import Mapping
from contextlib import suppress
from email.utils import formatdate
from urllib.parse import parse_qsl

import orjson
from aiohttp import web

from sidecar.demo.accounts import Account
from sidecar.demo.faults import FOREIGN, REFUSED, Fault, Json, Refusal, Trouble
from sidecar.demo.operations import CURSORS, ENTITLEMENTS, FEATURES, UNKNOWN, VERSION, Seen, operation_of
from sidecar.demo.pages import Pairs, Params, checked, found, page, required
from sidecar.demo.stripe import FakeStripe


async def receive(stripe: FakeStripe, request: web.Request) -> web.StreamResponse:
    """Answer truly, or as the fault has it that is switched on."""
    form = parse_qsl((await request.read()).decode(errors="replace"), keep_blank_values=True)
    seen, trouble, fault = _note(stripe, request), None, None
    try:
        account = _admit(stripe, seen)
        if stripe.trouble and stripe.trouble.strikes(seen.operation):
            trouble, fault = stripe.trouble, stripe.trouble.fault
        answer = _answer(stripe, account, seen, [*request.query.items(), *form], fault)
    except Refusal as refusal:
        answer = refusal
    response = _worded(stripe, seen, answer, fault)
    if trouble:
        return await _troubled(trouble, request, seen, response)
    seen.status = response.status
    return response


async def _troubled(trouble: Trouble, request: web.Request, seen: Seen, response: web.Response) -> web.StreamResponse:
    """Send an answer as the network has it."""
    fault = trouble.fault
    if fault is Fault.HANG:
        await trouble.mended.wait()
    if fault is Fault.SLOW:
        await asyncio.sleep(trouble.delay)
    if fault is Fault.RESET:
        request.protocol.force_close()
        return response
    seen.status = response.status
    if fault is Fault.DRIP:
        return await _dripped(trouble, request, response)
    return await _torn(request, response) if fault is Fault.TORN else response


async def _begun(request: web.Request, response: web.Response) -> tuple[web.StreamResponse, bytes]:
    """Send the head of an answer, and give the body that it announces."""
    body = response.body if isinstance(response.body, bytes) else b""
    begun = web.StreamResponse(status=response.status, headers=response.headers)
    begun.content_length = len(body)
    await begun.prepare(request)
    return begun, body


async def _dripped(trouble: Trouble, request: web.Request, response: web.Response) -> web.StreamResponse:
    dripping, body = await _begun(request, response)
    for place in range(len(body)):
        if trouble.mended.is_set():
            await dripping.write(body[place:])
            break
        await dripping.write(body[place : place + 1])
        with suppress(TimeoutError):
            await asyncio.wait_for(trouble.mended.wait(), trouble.delay)
    return dripping


async def _torn(request: web.Request, response: web.Response) -> web.StreamResponse:
    torn, body = await _begun(request, response)
    await torn.write(body[: len(body) // 2])
    transport = request.transport
    if transport is not None:  # who asked is still there
        # A socket that does not linger says RST when it closes, and not FIN (socket(7)).
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return torn


def _note(stripe: FakeStripe, request: web.Request) -> Seen:
    method, path, headers = request.method, request.path, request.headers
    at = (stripe.clock or asyncio.get_running_loop().time)()
    request_id = f"req_{stripe.scrambled(14)}"
    seen = Seen(method, path, request.query, headers.get("Stripe-Account"), request_id, at, headers)
    stripe.requests.append(seen)
    if stripe.on_request:
        stripe.on_request(seen)
    return seen


def _admit(stripe: FakeStripe, seen: Seen) -> Account:
    key = _key(seen.headers.get("Authorization", ""))
    if key != stripe.key:
        message = f"Invalid API Key provided: {_masked(key)}" if key else "You did not provide an API key."
        raise Refusal(401, message, WWW_Authenticate='Basic realm="Stripe"')
    if seen.account not in stripe.accounts:
        message = f"does not have access to account '{seen.account}' (or that account does not exist)."
        raise Refusal(403, f"The provided key '{_masked(key)}' {message}", "account_invalid")
    needed = operation_of(seen.method, seen.path).permission
    if needed and key.startswith("rk_") and needed not in stripe.permissions:
        message = (
            f"The provided key '{_masked(key)}' does not have the required permissions for this endpoint on account "
            f"'{seen.account or 'acct_demo'}'. Having the '{needed}' permission would allow this request to continue."
        )
        raise Refusal(403, message)
    return stripe.accounts[seen.account]


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


def _answer(stripe: FakeStripe, account: Account, seen: Seen, pairs: Pairs, fault: Fault | None) -> Json | Refusal:
    if fault in REFUSED:
        return REFUSED[fault]
    operation = operation_of(seen.method, seen.path)
    if operation is UNKNOWN:
        raise Refusal(404, f"Unrecognized request URL ({seen.method}: {seen.path}). See https://stripe.com/docs.")
    if fault is Fault.REPEATED:
        pairs = [pair for pair in pairs if pair[0] not in CURSORS]
    answer = _truth(stripe, account, seen, checked(pairs, operation))
    if answer["object"] != "list":
        return answer
    if fault is Fault.ENDLESS:
        return answer | {"data": [], "has_more": True}
    return answer | {"has_more": True} if fault is Fault.REPEATED else answer


def _truth(stripe: FakeStripe, account: Account, seen: Seen, params: Params) -> Json:
    id_ = seen.path.rpartition("/")[2]
    match seen.operation:
        case "list":
            listed = page(ENTITLEMENTS, "active entitlement", _held(stripe, account, params), params)
            return listed | {"data": [account.inlined(e, params) for e in listed["data"]]}
        case "retrieve":
            everybodys = ChainMap(*account.customers.values())
            return account.inlined(found("active entitlement", everybodys, id_), params)
        case "events":
            return account.events.page(params, stripe.now(), stripe.visible_after)
        case "event":
            return found("event", account.events.known(stripe.now()), id_)
        case _:
            return _feature(account, seen.operation, id_, params)


def _feature(account: Account, operation: str, id_: str, params: Params) -> Json:
    match operation:
        case "features":
            return page(FEATURES, "feature", account.catalogue(params), params)
        case "feature":
            return found("feature", account.features, id_)
        case "create_feature":
            lookup_key, _ = required(params, "lookup_key"), required(params, "name")
            account.check_free(lookup_key)
            return account.update(account.add_feature(lookup_key), params)
        case _:  # update_feature
            return account.update(found("feature", account.features, id_), params)


def _held(stripe: FakeStripe, account: Account, params: Params) -> Mapping[str, Json]:
    customer = required(params, "customer")
    if customer in account.customers:
        return account.customers[customer]
    message = f"No such customer: '{customer}'"
    if customer in stripe.other_mode_customers:
        other, ours = ("test", "live") if stripe.livemode else ("live", "test")
        message += f"; a similar object exists in {other} mode, "
        message += f"but a {ours} mode key was used to make this request."
    raise Refusal(400, message, "resource_missing", "customer")


def _worded(stripe: FakeStripe, seen: Seen, answer: Json | Refusal, fault: Fault | None) -> web.Response:
    if fault in FOREIGN:
        status, foreign = FOREIGN[fault]
        return web.Response(status=status, body=foreign, content_type="text/html")
    status, headers = 200, {"Request-Id": seen.request_id, "Content-Type": "application/json"}
    headers["Stripe-Version"] = seen.headers.get("Stripe-Version", VERSION)
    headers["Date"] = formatdate(stripe.now(), usegmt=True)
    if isinstance(answer, Refusal):
        status, headers = answer.status, {n: v for n, v in (headers | answer.headers).items() if v}
        logs = f"https://dashboard.stripe.com/{'' if stripe.livemode else 'test/'}logs"
        answer = answer.body(f"{logs}/{seen.request_id}")
    body = orjson.dumps(answer, option=orjson.OPT_INDENT_2)
    if fault is Fault.OTHER_MODE:
        modes = b'"livemode": true', b'"livemode": false'
        body = body.replace(*(modes if stripe.livemode else modes[::-1]))
    if fault is not Fault.HALF:
        return web.Response(status=status, body=body, headers=headers)
    headers["Content-Length"] = str(len(body))
    half = web.Response(status=status, body=body[: len(body) // 2], headers=headers)
    half.force_close()
    return half
