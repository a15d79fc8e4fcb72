"""The API key: never shown, and read again from its file when it was rotated."""

import logging
from pathlib import Path
from typing import Self

from sidecar.errors import BadSettings
from sidecar.settings import check_key

log = logging.getLogger(__name__)


class ApiKey:
    """A secret or restricted Stripe key. Its ``repr`` and ``str`` do not contain it.

    A Kubernetes Secret that is mounted as a file changes under a running process, so the file is read again when
    Stripe no longer accepts what was read before.
    """

    def __init__(self, value: str, file: Path | None = None) -> None:
        check_key(value)
        self._value = value
        self._former = value
        self._file = file
        self.livemode = "_test_" not in value

    @classmethod
    def from_file(cls, file: Path) -> Self:
        """Read the key from ``file``; blanks around it are ignored.

        :raises BadSettings: when it cannot be read or is no key.
        """
        try:
            return cls(file.read_text().strip(), file)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise BadSettings([f"SIDECAR_STRIPE_API_KEY_FILE: {file}: {why}"]) from None

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

    def reload(self) -> bool:
        """Read the file again; tell whether it holds another key now. Blocks for a moment."""
        if self._file is None:
            return False
        try:
            new = ApiKey.from_file(self._file)
        except BadSettings as error:
            log.error("the API key cannot be read again: %s", error)  # noqa: TRY400 -- the message says it all
            return False
        if new.livemode is not self.livemode:
            log.error("the new API key is of the other mode; restart to change modes, until then it is not used")
            return False
        changed = new.reveal() != self._value
        if changed:
            self._former, self._value = self._value, new.reveal()
            log.info("the API key was read again and has changed")
        return changed
