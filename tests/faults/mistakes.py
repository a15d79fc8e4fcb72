"""Guards of the product that are removed in a real process, besides those that the simulation removes."""

from sidecar.core.checker import Checker
from tests.simulation.mutations import mutation


@mutation(Checker, "glance", breaks="Truth")
def serving_renews_the_age(glance):
    """What memory answers is said to be true now."""

    def glance_as_if_new(self, *question):
        finding = glance(self, *question)
        return finding and finding._replace(as_of=self._clock(), age=0.0)

    return glance_as_if_new
