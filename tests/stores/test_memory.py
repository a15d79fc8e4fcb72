"""No memory beyond this process."""

from sidecar.stores.memory import Memory
from tests.stores.keeping import ADA, NOW, listed


async def test_it_forgets_everything() -> None:
    """It may be told all that a store is told, and knows nothing afterwards."""
    memory = store = Memory()
    store.write(listed(ADA, "a"))
    store.mark(ADA, NOW, ())
    store.begin(None, NOW)
    store.advance(None, NOW)
    await store.flush()
    assert await store.read(ADA) is None
    assert store.spans == {}
    assert not store.is_open
    assert (memory.trouble, memory.written, memory.pending) == (None, 0, 0)
