"""Rules that are switched off one at a time, to see that the simulation notices; the product has no switches for it.

A mutation is a function that gets one of the product's functions and returns one with a mistake to be put in its
place. Its docstring says what goes wrong.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

Mistake = Callable[[Any], Any]


class Change(NamedTuple):
    """What is put in the place of the function ``name`` of ``owner``, a class or a module; it ``breaks`` a promise.

    How many seeds of a range are ``skipped`` is for what only one history in a thousand notices; it changes where the
    search begins, which saves minutes, and not how long it may go on.
    """

    owner: Any
    name: str
    mistake: Mistake
    breaks: str
    skipped: int = 0


MUTATIONS: dict[str, list[Change]] = {}
"""The changes that switch a rule off, by name."""


def mutation(
    owner: Any, name: str, *, breaks: str, of: str | None = None, skipped: int = 0
) -> Callable[[Mistake], Mistake]:
    """List a mutation of ``owner.name`` under the name of its function, or as another part ``of`` a mutation."""

    def listed(mistake: Mistake) -> Mistake:
        title = of or mistake.__name__.replace("_", "-")
        MUTATIONS.setdefault(title, []).append(Change(owner, name, mistake, breaks, skipped))
        return mistake

    return listed


@contextmanager
def switched_off(title: str) -> Iterator[None]:
    """Make the mistake for a while, in this process."""
    originals = [(owner, name, getattr(owner, name)) for owner, name, *_ in MUTATIONS[title]]
    try:
        for owner, name, mistake, *_ in MUTATIONS[title]:
            setattr(owner, name, mistake(getattr(owner, name)))
        yield
    finally:
        for owner, name, original in originals:
            setattr(owner, name, original)
