"""No memory beyond this process."""

from sidecar.errors import STORE_TROUBLES, StoreError
from sidecar.model import Customer, Snapshot, Spans
from sidecar.stores.sqlite import READS


class Memory:
    """Forgets everything it is told, and counts nothing."""

    is_open = False
    trouble: StoreError | None = None
    since = 0.0
    written = pending = bytes = max_bytes = pruned = 0

    def __init__(self) -> None:
        self.reads = dict.fromkeys(READS, 0)
        self.losses = dict.fromkeys(STORE_TROUBLES, 0)
        self.spans: dict[str | None, Spans] = {}

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
