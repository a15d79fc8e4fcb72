"""A signature gets the verdict that the official SDK gives it; what is signed is an event or malformed."""

import hmac
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
import stripe as official
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.errors import Malformed, Refused
from sidecar.model import Customer
from sidecar.stripe.events import NEWS, Event
from sidecar.stripe.webhook import LONGEST_HEADER, MOST_PARTS, Thin, read_notification, verify

FIXTURES = Path(__file__).resolve().parents[3] / "shared" / "reference" / "stripe-entitlements.fixtures.json"

NOW = 1_700_000_000.5
SECRET = "whsec_test_secret"
BODY = b'{"id":"evt_1"}'


def hex_of(body: bytes, at: int | str, secret: str = SECRET) -> str:
    """Sign by hand: the time as it is written, a dot, the bytes."""
    return hmac.new(secret.encode(), f"{at}.".encode() + body, sha256).hexdigest()


def header_for(body: bytes = BODY, at: int | str = 1_700_000_000, secret: str = SECRET) -> str:
    return f"t={at},v1={hex_of(body, at, secret)}"


def verdict(
    header: str | None,
    body: bytes = BODY,
    secrets: Sequence[str] = (SECRET,),
    *,
    tolerance: float = 300.0,
    now: float = NOW,
) -> str:
    """Return the code of the refusal, or "genuine"."""
    try:
        verify(body, header, secrets, now=now, tolerance=tolerance)
    except Refused as error:
        return error.code
    return "genuine"


def accepted_by_sdk(header: str | None, body: str, secret: str, tolerance: int, now: float = NOW) -> bool:
    """Ask the official SDK; it has no name for a signature that is not ASCII and fails in another way."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stripe._webhook.time", SimpleNamespace(time=lambda: now))  # it asks the machine's clock
        try:
            return bool(official.WebhookSignature.verify_header(body, header, secret, tolerance))
        except official.SignatureVerificationError:
            return False
        except TypeError as error:
            assert "non-ASCII" in str(error)  # noqa: PT017 -- a verdict, not what is tested
            return False


class TestASignature:
    def test_of_the_check_vector_is_genuine(self) -> None:
        """Body, secret and time whose signature was computed by the official SDK."""
        header = "t=1700000000,v1=be8cb8325f2202445260a855532f967e30ad2a9394ce28da66ee02880ddcb661"
        assert verdict(header, b"{}", ["whsec_x"]) == "genuine"
        assert verdict(header, b"{} ", ["whsec_x"]) == "bad_signature"
        assert verdict(header, b"{}", ["whsec_y"]) == "bad_signature"
        assert verdict(header, b"{}", ["x"]) == "bad_signature"

    def test_made_by_the_sdk_is_genuine(self) -> None:
        """Its own way to sign a test's payload is accepted."""
        header = official.WebhookSignature.generate_signature_header(BODY.decode(), SECRET, 1_700_000_000)
        assert header == header_for()
        assert verdict(header) == "genuine"

    @pytest.mark.parametrize(
        ("header", "code"),
        [
            (None, "no_signature"),
            ("", "no_signature"),
            (" ", "malformed_signature"),
            ("t", "malformed_signature"),
            ("v1", "malformed_signature"),
            ("t=1700000000", "malformed_signature"),
            (f"v1={hex_of(BODY, '')}", "malformed_signature"),
            (f"t=,v1={hex_of(BODY, '')}", "malformed_signature"),
            (f"t=NaN,v1={hex_of(BODY, 'NaN')}", "malformed_signature"),
            (f"t=1e9,v1={hex_of(BODY, '1e9')}", "malformed_signature"),
            (header_for(at="1700000000.0"), "malformed_signature"),
            (f"{header_for()},t", "malformed_signature"),
            (f"{header_for()},v1", "malformed_signature"),
            (header_for().replace(",", ", "), "malformed_signature"),
            (header_for().replace("v1", "v0"), "malformed_signature"),
            (header_for().replace("v1", "V1"), "malformed_signature"),
            (header_for().upper(), "malformed_signature"),
            ("t=" + "9" * 5000 + ",v1=x", "malformed_signature"),
            ("t=1700000000,v1=", "bad_signature"),
            ("t=1700000000,v1=é", "bad_signature"),
            ("t=1700000000,v1=\udcff", "bad_signature"),
            (header_for().replace("v1", "v1=é,v1"), "bad_signature"),
            (header_for(secret="whsec_other"), "bad_signature"),
            (header_for(body=b"{}"), "bad_signature"),
            (header_for().replace("t=1700000000", "t=1700000001"), "bad_signature"),
            (f"t=1,{header_for()}", "bad_signature"),
            (f"t=1700000000,v1={hex_of(BODY, 1_700_000_000).upper()}", "bad_signature"),
            ("t=" + "9" * 4000 + ",v1=x", "bad_signature"),
            (header_for(at=1_699_999_999 - 300), "signature_too_old"),
            (header_for(at=0), "signature_too_old"),
            (header_for(at=-5), "signature_too_old"),
            (header_for(at="-" + "9" * 4000), "signature_too_old"),
        ],
        ids=range(32),
    )
    def test_is_refused_by_name(self, header: str | None, code: str) -> None:
        """Missing, not to be understood, wrong, too old: each has its code, and the SDK refuses it too."""
        assert verdict(header) == code
        assert not accepted_by_sdk(header, BODY.decode(), SECRET, 300)

    @pytest.mark.parametrize(
        "header",
        [
            header_for(),
            header_for(at=1_699_999_701),
            header_for(at=1_700_010_000),
            header_for(at="9" * 4000),
            f"{header_for()},v0=x",
            f"v0,{header_for()}",
            f"{header_for()},t=1",
            f"v1=wrong,{header_for()}",
            f"{header_for()},v1=wrong",
            f"{header_for()},v1=é",
            f"é=é,{header_for()}",
            f"{header_for()}=more=of=it",
            f",,{header_for()},,",
            header_for().replace("t=", "t= +"),
            header_for().replace("1700000000", "1_700_000_000"),
            header_for().replace("t=1", "t=\u0661"),
            header_for().replace("t=", "t=000"),
        ],
        ids=range(17),
    )
    def test_is_accepted_where_the_sdk_accepts_it(self, header: str) -> None:
        """Other schemes, several signatures, the future, and every way to write a number that Python has."""
        assert verdict(header) == "genuine"
        assert accepted_by_sdk(header, BODY.decode(), SECRET, 300)

    @pytest.mark.parametrize(("at", "expected"), [(1_700_000_000, "genuine"), (1_699_999_999, "signature_too_old")])
    def test_may_be_as_old_as_the_tolerance(self, at: int, expected: str) -> None:
        """The border is inside; both sides of it are the SDK's."""
        assert verdict(header_for(at=at), now=1_700_000_300.0) == expected
        assert accepted_by_sdk(header_for(at=at), BODY.decode(), SECRET, 300, 1_700_000_300.0) == (
            expected == "genuine"
        )

    def test_is_never_too_old_without_a_tolerance(self) -> None:
        """Zero switches the check off, as in the SDK."""
        assert verdict(header_for(at=0), tolerance=0) == "genuine"
        assert accepted_by_sdk(header_for(at=0), BODY.decode(), SECRET, 0)

    def test_that_is_wrong_is_not_called_old(self) -> None:
        """Who has no secret learns nothing of our clock."""
        assert verdict(header_for(at=0, secret="other")) == "bad_signature"

    def test_of_any_secret_counts(self) -> None:
        """While a secret is rolled, Stripe signs with each active one; either alone, in either order, is enough."""
        old, new = "whsec_old", "whsec_new"
        both = f"{header_for(secret=new)},v1={hex_of(BODY, 1_700_000_000, old)}"
        for secrets in ([old], [new], [old, new], [new, old], ["", new], ["whsec_none", old]):
            assert verdict(both, secrets=secrets) == "genuine"
        assert verdict(header_for(secret=old), secrets=[old, new]) == "genuine"
        assert verdict(header_for(secret=old), secrets=[new]) == "bad_signature"

    @pytest.mark.parametrize("secrets", [[], [""], [" \t\r\n\f\v"], ["", " "]])
    def test_of_a_blank_secret_never_counts(self, secrets: list[str]) -> None:
        """An empty variable must not let everybody in."""
        for secret in ["", *secrets]:
            assert verdict(header_for(secret=secret), secrets=secrets) == "bad_signature"
            assert not accepted_by_sdk(header_for(secret=secret), BODY.decode(), secret, 300)

    def test_has_the_whole_secret_for_its_key(self) -> None:
        """Spaces around it, and what is not ASCII in it, belong to it."""
        for secret in (" whsec_x ", "whsec_ü"):
            assert verdict(header_for(secret=secret), secrets=[secret]) == "genuine"
            assert verdict(header_for(secret=secret), secrets=["whsec_x"]) == "bad_signature"

    def test_with_a_secret_that_is_no_text_fails_in_no_other_way(self) -> None:
        """Half a surrogate pair, as a variable that is not UTF-8 has, is a key that nothing fits."""
        assert verdict(header_for(), secrets=["\udcff"]) == "bad_signature"

    def test_is_over_the_bytes_as_they_came(self) -> None:
        """Bytes that are no UTF-8 can be signed; that they are no event is for the reader to say."""
        assert verdict(header_for(b"\xff\x00"), b"\xff\x00") == "genuine"
        assert verdict(header_for(b"\xef\xbb\xbf{}"), b"\xef\xbb\xbf{}") == "genuine"
        assert verdict(header_for(b"\xef\xbb\xbf{}"), b"{}") == "bad_signature"

    def test_has_bounds(self) -> None:
        """A hundred parts are looked at; more of them, or more characters than any of Stripe's, are none of its."""
        assert verdict("x=," * (MOST_PARTS - 2) + header_for()) == "genuine"
        assert verdict("x=," * (MOST_PARTS - 1) + header_for()) == "malformed_signature"
        room = LONGEST_HEADER - len(header_for()) - 1
        assert verdict("x" * room + "," + header_for()) == "genuine"
        assert verdict("x" * (room + 1) + "," + header_for()) == "malformed_signature"

    @pytest.mark.parametrize("header", ["t=31337,v1=cafe", "t=31337", header_for(at=31_337)])
    def test_is_not_repeated(self, header: str) -> None:
        """What is told about a refusal holds nothing of the header or the secret."""
        with pytest.raises(Refused) as caught:
            verify(BODY, header, [SECRET], now=NOW)
        assert (caught.value.status, caught.value.part) == (400, None)
        for part in ("31337", "cafe", hex_of(BODY, 31_337), SECRET):
            assert part not in str(caught.value)


TIMES = st.sampled_from([-10_000, -302, -301, -300, -299, -1, 0, 1, 300, 10_000]).map(lambda off: 1_700_000_000 + off)
SECRETS = st.sampled_from([SECRET, "whsec_other", "", " ", "\t\n", " whsec_x ", "whsec_ü"]) | st.text(max_size=9)
TEXTS = st.sampled_from(["", "{}", BODY.decode(), "\ufeff{}", "é", "\x00"]) | st.text(max_size=20)
NUMBERS = st.sampled_from(["", "+", "-", " ", "0", "_", "NaN", "1e9", "inf", "0x10", "\u0661", "9" * 4301]) | st.text(
    max_size=5
)


@st.composite
def headers(draw: st.DrawFn, body: str, secret: str) -> str:
    """Draw a header that is nearly right: parts of a good one and others, in any order, some spoilt."""
    at = draw(TIMES)
    written = draw(st.sampled_from([str(at), f"{at} ", f"+{at}", f"0{at}", f"{at:_}", f"-{at}"]) | NUMBERS)
    good = f"v1={hex_of(body.encode(), at, secret)}"
    others = st.sampled_from(
        ["t", "t=1", "v1", "v1=", "v1=é", "v0=1", "", "=", "==", f"{good}=x", f" {good}", good.upper()]
    )
    parts = draw(st.permutations([f"t={written}", good, *draw(st.lists(others | st.text(max_size=6), max_size=3))]))
    header = ",".join(parts)
    if draw(st.booleans()):
        place = draw(st.integers(0, len(header)))
        header = header[:place] + draw(st.text(max_size=2)) + header[place + draw(st.integers(0, 3)) :]
    return header


@given(data=st.data(), body=TEXTS, secret=SECRETS, other=SECRETS, tolerance=st.sampled_from([0, 1, 300]))
def test_the_verdict_is_the_sdks(data: st.DataObject, body: str, secret: str, other: str, tolerance: int) -> None:
    """For nearly right headers, right and wrong secrets, every age: both accept or both refuse."""
    header = data.draw(headers(body, secret))
    for mine in (secret, other):
        assert (verdict(header, body.encode(), [mine], tolerance=tolerance) == "genuine") == accepted_by_sdk(
            header, body, mine, tolerance
        )
    either = any(accepted_by_sdk(header, body, mine, tolerance) for mine in (other, secret))
    assert (verdict(header, body.encode(), [other, secret], tolerance=tolerance) == "genuine") == either


@given(
    header=st.none() | st.text() | st.text("tv1=,0 \udcff", max_size=40), body=st.binary(max_size=50), secret=SECRETS
)
@example("t=1,v1=\ud800", b"", "\ud800")
@example("=," * 4000, b"", SECRET)
@example("," * 20_000, b"", SECRET)
@example("t=" + "9" * 8000 + ",v1=x", b"", SECRET)
def test_no_header_fails_in_another_way(header: str | None, body: bytes, secret: str) -> None:
    """Whatever was sent, it is refused by name or genuine."""
    assert verdict(header, body, [secret, SECRET]).endswith("_signature")


def said(**changes: Any) -> bytes:
    """Say news; a change to None takes the field away."""
    item = {
        "id": "evt_1",
        "object": "event",
        "created": 1_700_000_000,
        "livemode": False,
        "type": NEWS,
        "data": {"object": {"customer": "cus_1"}},
    }
    return orjson.dumps({name: value for name, value in (item | changes).items() if value is not None})


class TestANotification:
    def test_is_an_event(self) -> None:
        """One that names its customer."""
        event = Event("evt_1", NEWS, 1_700_000_000.0, livemode=False, customer=Customer("cus_1", "acct_1"))
        assert read_notification(said(account="acct_1")) == event

    @pytest.mark.parametrize("change", ["updated", "entitlement_added", "entitlement_removed", "not_yet_invented"])
    def test_may_be_thin(self, change: str) -> None:
        """A thin event has no customer; whatever changed in a summary of entitlements is news."""
        thin = read_notification(
            said(object="v2.core.event", type=f"v1.entitlements.active_entitlement_summary.{change}")
        )
        assert thin == Thin("evt_1", f"v1.entitlements.active_entitlement_summary.{change}", livemode=False)
        assert isinstance(thin, Thin)
        assert thin.is_news

    @pytest.mark.parametrize(
        "type_", ["v1.customer.subscription.active", "v1.entitlements.active_entitlement_summary", NEWS]
    )
    def test_that_is_thin_may_be_about_something_else(self, type_: str) -> None:
        """Only one namespace of types is about entitlements."""
        thin = read_notification(said(object="v2.core.event", type=type_))
        assert isinstance(thin, Thin)
        assert not thin.is_news

    @pytest.mark.parametrize(
        "body",
        [b"", b"{", b"NaN", b"\xff", b"\xef\xbb\xbf{}", b'{"id":"\\ud800"}', b"[" * 100_000],
        ids=range(7),
    )
    def test_is_json(self, body: bytes) -> None:
        """In UTF-8, without a byte order mark, and of a depth that can be read."""
        with pytest.raises(Malformed, match=r"^body: is not JSON$") as caught:
            read_notification(body)
        assert (caught.value.code, caught.value.status) == ("malformed_body", 400)

    @pytest.mark.parametrize(
        "body",
        [
            b"null",
            b"[]",
            b'"evt_1"',
            b"{}",
            said(object="list"),
            said(id=None),
            said(created="2026-11-01T10:00:00.000Z"),
            said(data=None),
            said(account="hostile text"),
            said(object="v2.core.event", id=None),
            said(object="v2.core.event", type=""),
            said(object="v2.core.event", livemode=None),
            orjson.dumps({"detail": orjson.loads(said())}),
            orjson.dumps({"specversion": "1.0", "data": orjson.loads(said())}),
        ],
        ids=range(14),
    )
    def test_that_is_something_else_is_malformed(self, body: bytes) -> None:
        """Broken events, envelopes of other services: what is wrong is said, and nothing of the body repeated."""
        with pytest.raises(Malformed, match=r"^body: must be one of Stripe's events; it is ") as caught:
            read_notification(body)
        assert "hostile" not in str(caught.value)

    @given(
        st.binary(max_size=200)
        | st.builds(said, object=st.text(max_size=3), id=st.integers(-5, 5) | st.text(max_size=3))
    )
    def test_fails_in_one_way_only(self, body: bytes) -> None:
        """Whatever was signed, it is an event or malformed."""
        try:
            assert read_notification(body).id
        except Malformed as error:
            assert error.code == "malformed_body"  # noqa: PT017 -- either is right

    @pytest.mark.skipif(not FIXTURES.is_file(), reason="the fixtures are not on this machine")
    def test_is_read_from_what_stripe_sends(self) -> None:
        """Three events of their customers, and a thin one that is news of nobody."""
        constructed = orjson.loads(FIXTURES.read_bytes())["constructed"]
        found = {
            name: read_notification(orjson.dumps(item))
            for name, item in constructed.items()
            if name.startswith(("event_", "thin_"))
        }
        thin = found.pop("thin_notification_updated")
        assert thin == Thin("evt_test_thin_1", "v1.entitlements.active_entitlement_summary.updated", livemode=False)
        customers = [one.customer for one in found.values() if isinstance(one, Event)]
        assert customers == [Customer("cus_test_A"), Customer("cus_test_A"), Customer("cus_test_B")]
