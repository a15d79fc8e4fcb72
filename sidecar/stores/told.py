"""What a store was told and has not written yet, in the order that matters: of each customer only the last."""

from sidecar.model import Customer, Snapshot, Spans, marked
from sidecar.stores.database import Batch, Mark


class Told:
    """What was told since the last batch: of each customer a list or a mark, never both."""

    def __init__(self) -> None:
        self.lists: dict[Customer, Snapshot] = {}
        self.marks: dict[Customer, Mark] = {}
        self.spans: dict[str | None, Spans] = {}
        self.used: set[Customer] = set()

    def __len__(self) -> int:
        return len(self.lists) + len(self.marks) + len(self.spans) + len(self.used)

    def batch(self) -> Batch:
        """Return it as what is to be written."""
        return Batch(self.lists, self.marks, self.spans, frozenset(self.used))

    def write(self, snapshot: Snapshot) -> None:
        """Take note of a list. News that it does not have in it, it is marked with itself."""
        self.lists[snapshot.customer] = snapshot
        self.marks.pop(snapshot.customer, None)

    def mark(self, customer: Customer, mark: Mark) -> None:
        """Take note of news."""
        if customer in self.lists:
            self.lists[customer] = marked(self.lists[customer], *mark)
        else:
            earlier = self.marks.get(customer, mark)  # it is true up to where it was before the first news
            self.marks[customer] = Mark(mark.heard_at, earlier.spans)

    def overlay(self, customer: Customer, found: Snapshot | None) -> Snapshot | None:
        """Return what was ``found`` of ``customer`` as it will be once this is written."""
        found = self.lists.get(customer, found)
        if found is not None and customer in self.marks:
            return marked(found, *self.marks[customer])
        return found
