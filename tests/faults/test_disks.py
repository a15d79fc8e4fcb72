"""The small disk is one."""

import errno
from pathlib import Path

import pytest

from tests.faults.disks import fill, small_disk


def test_a_small_disk_gets_full(tmp_path: Path) -> None:
    """Nothing more can be written until something is removed."""
    with small_disk(tmp_path / "disk", 1 << 20) as disk:
        rest = fill(disk)
        assert 0 < rest.stat().st_size <= 1 << 20
        with pytest.raises(OSError, match="space") as caught:
            (disk / "more").write_bytes(b"\0" * 8192)
        assert caught.value.errno == errno.ENOSPC
        rest.unlink()
        (disk / "more").write_bytes(b"\0" * 8192)
    assert not any((tmp_path / "disk").iterdir())
