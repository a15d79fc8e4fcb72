"""A list as bytes: versioned, checked against damage, and sealed where there is a key."""

from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import Unreadable
from sidecar.model import Customer, Dirty, Feature, Plan, Snapshot, Span, Unknown, packed
from sidecar.stores.codec import Checksum, Codec, Row, Seal, Sealed, read_key
from tests.stores.keeping import ADA, BOB, NOW, listed

KEY = bytes(range(32))
SEALS: list[Seal] = [Checksum(), Sealed(KEY)]
BOTH = pytest.mark.parametrize("seal", SEALS, ids=["plain", "sealed"])

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
IDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), min_size=1, max_size=40)
TIMES = st.floats(0, 4e9)
PLANS = st.lists(st.tuples(TEXTS, TEXTS, IDS), max_size=5)
SNAPSHOTS = st.builds(
    lambda taken_at, rows, unknown, dirty: Snapshot(
        ADA,
        taken_at,
        Plan.of(tuple(Feature(id_, key) for id_, key, _ in rows)),
        packed([id_ for *_, id_ in rows]),
        unknown,
        dirty,
    ),
    TIMES,
    PLANS,
    st.none() | st.builds(Unknown, st.integers(400, 499), TEXTS),
    st.none() | st.builds(Dirty, TIMES, TIMES),
)


def codec(seal: Seal, *, livemode: bool = False) -> Codec:
    return Codec(livemode, seal)


@BOTH
@given(snapshot=SNAPSHOTS, written_at=TIMES)
def test_what_is_written_is_read(seal: Seal, snapshot: Snapshot, written_at: float) -> None:
    """Every list comes back equal, to the last bit of its times, whatever its keys are made of."""
    writer = codec(seal)
    name, row = writer.name(ADA), Row(snapshot, written_at)
    found = writer.decode(ADA, writer.encode(row, name), name)
    assert found == row
    assert found.snapshot.plan.lookup_keys == snapshot.plan.lookup_keys


@BOTH
@given(data=st.data())
def test_no_damage_goes_unnoticed(seal: Seal, data: st.DataObject) -> None:
    """A byte that changed, a part that is missing, bytes too many: each is said, and nothing made up."""
    writer = codec(seal)
    name = writer.name(ADA)
    body = writer.encode(Row(listed(ADA, "a", "b"), NOW), name)
    at = data.draw(st.integers(0, len(body) - 1))
    flipped = data.draw(st.integers(1, 255))
    damaged = data.draw(
        st.sampled_from([body[:at] + bytes([body[at] ^ flipped]) + body[at + 1 :], body[:at], body + b"x", b""])
    )
    with pytest.raises(Unreadable):
        writer.decode(ADA, damaged, name)


@BOTH
def test_a_row_cannot_stand_for_another(seal: Seal) -> None:
    """It is bound to customer, account and mode."""
    writer = codec(seal)
    body = writer.encode(Row(listed(ADA, "a"), NOW), writer.name(ADA))
    others = [
        writer.name(Customer("cus_other")),
        writer.name(Customer(ADA.id, BOB.account)),
        codec(seal, livemode=True).name(ADA),
    ]
    assert len({writer.name(ADA), *others}) == 4
    for name in others:
        with pytest.raises(Unreadable):
            writer.decode(ADA, body, name)


def test_a_newer_version_is_not_guessed_at() -> None:
    """What it means is not known here."""
    writer = codec(Checksum())
    name = writer.name(ADA)
    body = writer.encode(Row(listed(), NOW), name)
    with pytest.raises(Unreadable, match="version"):
        writer.decode(ADA, b"\x02" + body[1:], name)


@pytest.mark.parametrize(
    "values",
    [
        [],
        [1, 2],
        [1, 2, [["f", "k"]], None, None],
        [1, 2, [["f", "k", "e\ne"]], None, None],
        [1, "x", [], None, None],
        {"a": 1},
    ],
)
def test_what_is_whole_but_no_row_is_refused(values: object) -> None:
    """A checksum that is right makes no list of it."""
    writer = codec(Checksum())
    with pytest.raises(Unreadable, match="shape"):
        writer.decode(ADA, writer._close(values, b"name"), b"name")  # type: ignore[arg-type]


@BOTH
def test_spans_come_back(seal: Seal) -> None:
    """With the account that they are of."""
    writer, spans = codec(seal), (Span(1.5, 2.5), Span(3.0, NOW))
    for account in (None, "acct_1"):
        assert writer.decode_spans(writer.encode_spans(account, spans, b"n"), b"n") == (account, spans)
    with pytest.raises(Unreadable):
        writer.decode_spans(writer.encode_spans(None, spans, b"n"), b"other")


class TestTheSeal:
    def test_hides_all(self) -> None:
        """Neither who is a customer nor what they hold can be read."""
        writer = codec(Sealed(KEY))
        name = writer.name(ADA)
        body = writer.encode(Row(listed(ADA, "seats"), NOW), name)
        for secret in (b"cus_ada", b"seats", b"ent_"):
            assert secret not in name + body
        assert KEY.hex() not in repr(Sealed(KEY))

    def test_is_never_the_same_twice(self) -> None:
        """Each has a nonce of its own."""
        seal = Sealed(KEY)
        assert len({seal.close(b"body", b"name") for _ in range(100)}) == 100

    def test_opens_with_its_own_key_only(self) -> None:
        """Another key, or none, opens nothing; what was never sealed is none of ours."""
        sealed = Sealed(KEY).close(b"body", b"name")
        for other in (Sealed(KEY[::-1]), Checksum()):
            with pytest.raises(Unreadable):
                other.open(sealed, b"name")
        with pytest.raises(Unreadable):
            Sealed(KEY).open(Checksum().close(b"body", b"name"), b"name")


class TestTheKey:
    def test_is_32_bytes_in_base64(self) -> None:
        """As ``openssl rand -base64 32`` prints them."""
        assert read_key(b64encode(KEY).decode() + "\n") == KEY

    @pytest.mark.parametrize("text", ["", "secret", b64encode(KEY[:31]).decode(), "é" * 44, "!" * 44])
    def test_is_nothing_else(self, text: str) -> None:
        """The complaint says how one is made, and not what was there."""
        with pytest.raises(ValueError, match="openssl rand -base64 32") as caught:
            read_key(text)
        assert not text or text not in str(caught.value)
