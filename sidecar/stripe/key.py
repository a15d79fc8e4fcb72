"""The API key: never shown, and replaced when it was rotated."""

from pathlib import Path
from typing import Self

from sidecar.kit.clock import Clock
from sidecar.notation import check_key
from sidecar.rotation import SecretFile, opened


class ApiKey:
    """A secret or restricted Stripe key. Its ``repr`` and ``str`` do not contain it.

    ``file`` is where it came from, if it did: it is read again when Stripe no longer accepts what was read before.
    """

    file: SecretFile | None = None

    def __init__(self, value: str) -> None:
        check_key(value)
        self._value = value
        self._former = value
        self.livemode = "_test_" not in value

    @classmethod
    def from_file(cls, path: Path, *, clock: Clock) -> Self:
        """Read the key from a file; blanks around it are ignored.

        :raises BadSettings: when it cannot be read or is no key.
        """
        key, file = opened("stripe_api_key", path, lambda text: cls(text.strip()), clock=clock)
        key.file = file
        return key

    def __repr__(self) -> str:
        return f"ApiKey({self.masked})"

    @property
    def masked(self) -> str:
        """What may be shown of the key: its kind and mode."""
        return "_".join([*self._value.split("_")[:-1][:2], "***"])

    def reveal(self) -> str:
        """Return the key itself, for the one header that needs it."""
        return self._value

    def scrub(self, text: str) -> str:
        """Return ``text`` with the key, should it be in there, made unreadable."""
        return text.replace(self._value, self.masked).replace(self._former, self.masked)

    def scrub_bytes(self, body: bytes) -> bytes:
        """Return ``body`` with the key, should it be in there, made unreadable."""
        return body.replace(self._value.encode(), self.masked.encode()).replace(
            self._former.encode(), self.masked.encode()
        )

    def take(self, text: str) -> bool:
        """Use the key in ``text`` from now on, blanks around it ignored; tell whether it is another one.

        :raises ValueError: when it is no key, or one of the other mode: what is in memory is of this mode.
        """
        new = ApiKey(text.strip())
        if new.livemode is not self.livemode:
            raise ValueError("holds a key of the other mode (test, live); changing modes takes a restart")
        changed = new.reveal() != self._value
        if changed:
            self._former, self._value = self._value, new.reveal()
        return changed

    async def reload(self) -> None:
        """Read the file again, if there is one."""
        if self.file is not None:
            _ = await self.file.reread()
