"""What a caller may say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.api.questions import account_id, customer_id, decoded, lookup_key
from sidecar.errors import Malformed


@given(st.text())
def test_no_text_but_an_id_is_a_customer(text: str) -> None:
    """What passes can stand in a URL, a header and a log line as it is."""
    if text.isascii() and text.replace("_", "a").isalnum() and len(text) <= 255:
        assert customer_id(text) == text
    else:
        with pytest.raises(Malformed, match="customer: must be"):
            customer_id(text)


@given(st.binary())
def test_decoding_never_fails_in_another_way(raw: bytes) -> None:
    """Any path segment either decodes exactly once or is refused by name."""
    text = "".join(f"%{byte:02X}" for byte in raw)
    try:
        expected = raw.decode()
    except UnicodeDecodeError:
        with pytest.raises(Malformed, match="lookup_key: is not UTF-8"):
            decoded("lookup_key", text)
    else:
        assert decoded("lookup_key", text) == expected


@pytest.mark.parametrize("value", [None, 1, "", "k" * 201, "a\nb", "\x7f", "\x85", [], {}])
def test_lookup_keys_have_bounds(value: object) -> None:
    """One to two hundred characters, none of them a control character."""
    with pytest.raises(Malformed):
        lookup_key(value)


def test_stripe_may_send_longer_keys_than_eighty() -> None:
    """The documentation says 80 characters, the schema 5000: two hundred are taken."""
    assert lookup_key("k" * 200) == "k" * 200


@pytest.mark.parametrize("value", [None, "acct_", "cus_1", "acct_1/acct_2", "acct_1\r\nX: y"])
def test_accounts_begin_with_acct(value: object) -> None:
    """Nothing else is ever put into Stripe's header."""
    with pytest.raises(Malformed):
        account_id(value)
    assert account_id("acct_1Nv0FGQ9RKHgCVdK") == "acct_1Nv0FGQ9RKHgCVdK"
