"""The charts, loaded once. The engines are imported by those who need them, for not every system has them."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.packaging.engines import Chart


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
