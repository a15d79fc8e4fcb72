"""Mutations of the store: what outlives the process, and what comes back from there."""

from sidecar.stores.database import Database
from sidecar.stores.sqlite import Sqlite
from sidecar.stores.told import Told
from tests.simulation.mutations import mutation


@mutation(Sqlite, "mark", breaks="Truth")
def the_store_is_told_of_no_news(_mark):
    """Who is not in memory is not marked in the store either, and so vouched for when they come back."""
    return lambda self, customer, heard_at, spans: None


@mutation(Sqlite, "flush", breaks="News")
def nobody_waits_for_the_disk(_flush):
    """News is said to be kept before it is on the disk."""

    async def return_at_once(self):
        return None

    return return_at_once


@mutation(Told, "batch", breaks="Truth")
def a_watermark_goes_before_the_marks(batch):
    """Watermarks are written at once, the marks of the news before them with some later batch, or never."""

    return lambda self: batch(self)._replace(marks={})


@mutation(Sqlite, "_overlaid", breaks="News", skipped=1450)
def what_is_not_written_yet_is_not_looked_at(_overlaid):
    """A customer comes back as the file has them, whatever was told since."""
    return lambda self, customer, found: found


@mutation(Database, "reopen", breaks="Truth")
def what_was_missed_is_not_minded(_reopen):
    """A file that comes back is taken for complete, although nothing could be written for a while."""
    return lambda self, now: self.open(now)
