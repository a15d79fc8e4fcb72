"""The image is built once, where that can be done; the charts are loaded once.

The engines are imported by those who need them, for not every system has them.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.packaging.image import Image, Store, lacking, run

if TYPE_CHECKING:
    from tests.packaging.engines import Chart

SECRET = "planted-in-the-configuration-of-pip"


@pytest.fixture(scope="session")
def store() -> Iterator[Store]:
    """Have a place for images, with the base in it."""
    if reason := lacking():
        pytest.skip(reason)
    with tempfile.TemporaryDirectory() as directory:
        # Many small files, written and thrown away at once: a gigabyte that no disk need see.
        run("mount", "-t", "tmpfs", "tmpfs", directory)
        try:
            store = Store(Path(directory), secret=SECRET)
            store.add_base()
            yield store
            store.end()
        finally:
            run("umount", "--recursive", directory)


@pytest.fixture(scope="session")
def runtime(store: Store) -> Iterator[Image]:
    store.build("runtime")
    with store.mounted("runtime") as image:
        yield image


@pytest.fixture(scope="session")
def minimal(store: Store, runtime: Image) -> Iterator[Image]:
    """Have what is built with the same layers, and therefore afterwards."""
    store.build("minimal")
    with store.mounted("minimal") as image:
        yield image


@pytest.fixture(params=["runtime", "minimal"])
def image(request: pytest.FixtureRequest) -> Image:
    """Return either."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Image)
    return found


@pytest.fixture(scope="session")
def charts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with a copy of the charts."""
    from tests.packaging.engines import copied  # noqa: PLC0415 -- see above

    return copied(tmp_path_factory.mktemp("packaging"))


@pytest.fixture(scope="session")
def application(charts: Path) -> "Chart":
    """The service of its own."""
    from tests.packaging.engines import Chart  # noqa: PLC0415 -- see above

    return Chart(charts / "entitlement-sidecar")


@pytest.fixture(scope="session")
def user(charts: Path) -> "Chart":
    """Somebody's chart that puts the sidecar beside an application."""
    from tests.packaging.engines import Chart  # noqa: PLC0415 -- see above

    return Chart(charts / "examples" / "helm-app")
