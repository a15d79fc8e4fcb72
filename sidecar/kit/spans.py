"""What a trace may say of a piece of work. Whoever does it notes what is worth knowing; mostly nobody listens."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field


@dataclass(slots=True)
class Span:
    """What is noted of a piece of work; ``headers`` go along with its request, for whoever traces it further."""

    attributes: dict[str, str | int] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)


Spans = Callable[[str | None], AbstractContextManager[Span]]
"""Begin a piece of work by its name; None is the request that is being answered, once its answer leaves memory."""


def no_span(_: str | None) -> AbstractContextManager[Span]:
    """Trace nothing."""
    return nullcontext(Span())
