"""A list as bytes: versioned, checked against damage, and sealed where there is a key.

A row is a byte of version, then either a CRC-32 of its name and body before the body, or the body sealed by AES-GCM-SIV
(RFC 8452). What is sealed is bound to its name, which has mode, account and customer in it, so that no row can stand
for another. With a key the names are keyed hashes: the file does not tell who is a customer.
"""

from base64 import b64decode
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from os import urandom
from typing import Any, NamedTuple, Protocol, TypeVar
from zlib import crc32

import orjson

from sidecar.errors import Unreadable
from sidecar.model import Customer, Dirty, Feature, Plan, Snapshot, Span, Spans, Unknown, packed

T = TypeVar("T")

VERSION = 1
KEY_BYTES = 32
NONCE = 12


class Row(NamedTuple):
    """What is kept of a customer, when it was written, in Unix seconds, and in which hour it was used last."""

    snapshot: Snapshot
    written_at: float
    used: int = 0


class Seal(Protocol):
    """Makes bytes readable only for who has the key, if there is one: if it ``is_secret``.

    Nobody else can make or change a row; but who may write to the file can put back an older one, or all of the file.
    """

    is_secret: bool

    def name(self, plain: bytes) -> bytes:
        """Return what stands for ``plain`` in the file."""

    def close(self, body: bytes, name: bytes) -> bytes:
        """Return ``body`` sealed, and bound to ``name``."""

    def open(self, sealed: bytes, name: bytes) -> bytes:
        """Return what was sealed.

        :raises Unreadable: when it was changed, belongs elsewhere, or was sealed with another key.
        """


class Checksum:
    """No seal: damage is noticed, intent is not."""

    is_secret = False

    def name(self, plain: bytes) -> bytes:
        """Return ``plain``."""
        return plain

    def close(self, body: bytes, name: bytes) -> bytes:
        """Return ``body`` after a checksum of it and ``name``."""
        return crc32(body, crc32(name)).to_bytes(4, "big") + body

    def open(self, sealed: bytes, name: bytes) -> bytes:
        """Return what was checked.

        :raises Unreadable: when it is damaged or belongs elsewhere.
        """
        body = sealed[4:]
        if self.close(body, name) != sealed:
            raise Unreadable("the checksum is wrong")
        return body


class Sealed:
    """AES-256-GCM-SIV, which forgives a nonce that comes twice: random ones are safe however much is written."""

    is_secret = True

    def __init__(self, key: bytes) -> None:
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 -- an extra, and 20 ms of start time
        from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV  # noqa: PLC0415 -- the same

        self._invalid: type[Exception] = InvalidTag
        self._aead = AESGCMSIV(derived(key, b"rows"))
        self._names = derived(key, b"names")

    def __repr__(self) -> str:
        return "Sealed(***)"

    def name(self, plain: bytes) -> bytes:
        """Return a hash of ``plain`` that takes the key to make."""
        return blake2b(plain, key=self._names, digest_size=16).digest()

    def close(self, body: bytes, name: bytes) -> bytes:
        """Return ``body`` sealed, and bound to ``name``."""
        nonce = urandom(NONCE)
        return nonce + self._aead.encrypt(nonce, body, name)

    def open(self, sealed: bytes, name: bytes) -> bytes:
        """Return what was sealed.

        :raises Unreadable: when it was changed, belongs elsewhere, or was sealed with another key.
        """
        try:
            return self._aead.decrypt(sealed[:NONCE], sealed[NONCE:], name)
        except (self._invalid, ValueError):  # ValueError: too short to be anything
            raise Unreadable("the seal is broken, or another key's") from None


def derived(key: bytes, purpose: bytes) -> bytes:
    """Return a key of its own for one ``purpose``."""
    return blake2b(key=key, person=purpose, digest_size=KEY_BYTES).digest()


def read_key(text: str) -> bytes:
    """Return the key that a file holds: 32 random bytes in base64, as ``openssl rand -base64 32`` makes them.

    :raises ValueError: when it is anything else; the text is not repeated.
    """
    try:
        key = b64decode(text.strip(), validate=True)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise ValueError("must hold 32 random bytes in base64 (openssl rand -base64 32)")
    return key


@dataclass(frozen=True)
class Codec:
    """Writes and reads rows of one mode."""

    livemode: bool
    seal: Seal

    def name(self, customer: Customer) -> bytes:
        """Return the name that a customer's row has in the file."""
        return self.seal.name("/".join((self.mode, customer.account or "", customer.id)).encode())

    @property
    def mode(self) -> str:
        """``live`` or ``test``."""
        return "live" if self.livemode else "test"

    def encode(self, row: Row, name: bytes) -> bytes:
        """Return a row as bytes."""
        snapshot = row.snapshot
        features = [(*feature, id_) for feature, id_ in zip(snapshot.plan.features, snapshot.ids, strict=True)]
        return self._close([row.written_at, snapshot.taken_at, features, snapshot.unknown, snapshot.dirty], name)

    def decode(self, customer: Customer, body: bytes, name: bytes) -> Row:
        """Return the row that ``encode`` made.

        :raises Unreadable: when it is not one.
        """
        return self._open(body, name, partial(read_row, customer))

    def encode_spans(self, account: str | None, spans: Spans, name: bytes) -> bytes:
        """Return an account's spans as bytes."""
        return self._close([account, spans], name)

    def decode_spans(self, body: bytes, name: bytes) -> tuple[str | None, Spans]:
        """Return the account and its spans that ``encode_spans`` was given.

        :raises Unreadable: when it is not that.
        """
        return self._open(body, name, read_spans)

    def _close(self, values: list[Any], name: bytes) -> bytes:
        return bytes([VERSION]) + self.seal.close(orjson.dumps(values, default=list), name)  # named tuples: lists

    def _open(self, body: bytes, name: bytes, read: Callable[[Any], T]) -> T:
        if body[:1] != bytes([VERSION]):
            raise Unreadable("of a version that is not known here")
        opened = self.seal.open(body[1:], name)
        try:
            return read(orjson.loads(opened))
        except (TypeError, ValueError, LookupError):
            raise Unreadable("of a shape that is not known here") from None


def read_row(customer: Customer, values: Any) -> Row:
    """Return what is kept of ``customer``.

    :raises TypeError, ValueError, LookupError: when ``values`` are something else.
    """
    written_at, taken_at, features, unknown, dirty = values
    snapshot = Snapshot(
        customer,
        float(taken_at),
        Plan.of(tuple(Feature(str(id_), str(lookup_key)) for id_, lookup_key, _ in features)),
        packed([str(id_) for _, _, id_ in features]),
        None if unknown is None else Unknown(int(unknown[0]), str(unknown[1])),
        None if dirty is None else Dirty(float(dirty[0]), float(dirty[1])),
    )
    return Row(snapshot, float(written_at))


def read_spans(values: Any) -> tuple[str | None, Spans]:
    """Return an account and its spans.

    :raises TypeError, ValueError, LookupError: when ``values`` are something else.
    """
    account, spans = values
    return account, tuple(Span(float(since), float(until)) for since, until in spans)
