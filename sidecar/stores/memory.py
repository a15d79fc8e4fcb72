"""No memory beyond this process."""

from collections.abc import Mapping

from sidecar.model import Customer, Snapshot, Spans


class Memory:
    """Forgets everything it is told."""

    is_open = False

    @property
    def spans(self) -> Mapping[str | None, Spans]:
        """What an earlier process left: nothing."""
        return {}

    async def read(self, customer: Customer) -> Snapshot | None:
        """Return None."""
        del customer
        return None

    def write(self, snapshot: Snapshot) -> None:
        """Do nothing."""

    def mark(self, customer: Customer, heard_at: float, spans: Spans) -> None:
        """Do nothing."""

    def begin(self, account: str | None, since: float) -> None:
        """Do nothing."""

    def advance(self, account: str | None, until: float) -> None:
        """Do nothing."""

    async def flush(self) -> None:
        """Return at once."""
