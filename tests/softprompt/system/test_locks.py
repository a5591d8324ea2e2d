"""Finding the process that holds a lock."""

from __future__ import annotations

import os
from pathlib import Path

from softprompt.system import locks
from softprompt.system.locks import lock_holder, try_lock


def test_the_holder_of_a_lock_is_found(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert lock_holder(path) is None
    lock = try_lock(path)
    assert lock is not None
    assert lock_holder(path) == os.getpid()
    os.close(lock)
    assert lock_holder(path) is None


def test_a_process_that_has_the_file_open_is_not_its_holder(tmp_path: Path) -> None:
    """The kernel's list can name a process that has ended, whose id another process has by now."""
    path = tmp_path / "lock"
    path.touch()
    with path.open() as _:
        assert not locks._holds_lock(str(os.getpid()), os.lstat(path))
