"""The private folder with the worker's socket and locks.

XDG_RUNTIME_DIR is not used: the system clears it on the user's last logout, and the worker must keep running after
that.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from softprompt.errors import WorkerError
from softprompt.system.filesystems import set_mode
from softprompt.system.locks import try_lock
from softprompt.system.paths import APP_NAME, data_folder, find_privacy_problem, make_folder

RUNTIME_VARIABLE = "SOFTPROMPT_RUNTIME"
MAX_PATH_BYTES = 107  # limit for a Unix socket's path, without the final zero; some systems allow 103


class Endpoint:
    """The socket and locks of the worker that serves the data folder `home`.

    A relative SOFTPROMPT_RUNTIME is resolved against the data folder, so that every command finds the same endpoint.
    """

    def __init__(self, home: Path | None = None) -> None:
        self.home = home or data_folder()
        self.folder = _runtime_folder(self.home)
        key = hashlib.sha256(os.fsencode(os.path.realpath(self.home))).hexdigest()[:16]
        self.socket = self.folder / f"{key}.sock"
        self.start_lock = self.folder / f"{key}.start"
        self.worker_lock = self.folder / f"{key}.worker"

    def prepare(self) -> None:
        """Create the folder, or check that it belongs to this user and is private. Raises WorkerError."""
        if len(os.fsencode(self.socket)) > MAX_PATH_BYTES:
            raise WorkerError(
                f"{self.socket} is too long for a socket path: "
                f"set {RUNTIME_VARIABLE} to a shorter folder, such as /tmp/me"
            )
        try:
            if self.folder.is_relative_to(self.home.absolute()):
                make_folder(self.folder.parent)
            self.folder.mkdir(mode=0o700)
            set_mode(self.folder, 0o700)  # whatever the umask
        except FileExistsError:
            pass
        except OSError as error:
            raise WorkerError(
                f"cannot create {self.folder} ({error.strerror}): "
                f"set {RUNTIME_VARIABLE} to a folder that you can write to"
            ) from error
        self.check()

    def check(self) -> None:
        """Raise WorkerError if the folder is a link, belongs to another user, or is accessible to others."""
        if wrong := find_privacy_problem(self.folder):
            raise WorkerError(
                f"{self.folder} {wrong}, so it cannot be used: "
                f"run `export {RUNTIME_VARIABLE}={self._suggest_folder()}` and start again"
            )

    def _suggest_folder(self) -> Path:
        """Return a short folder path that does not exist yet or that is already private to this user."""
        names = (Path(f"/tmp/{APP_NAME}-{os.geteuid()}-{number}") for number in range(2, 100))
        return next(
            (path for path in names if not os.path.lexists(path) or not find_privacy_problem(path)), Path("/tmp/me")
        )


def _runtime_folder(home: Path) -> Path:
    given = os.environ.get(RUNTIME_VARIABLE) or f"/tmp/{APP_NAME}-{os.geteuid()}"
    try:
        return home.absolute() / Path(given).expanduser()
    except RuntimeError as error:
        raise WorkerError(
            f"{RUNTIME_VARIABLE} is {given!r}, which names an unknown user: set it to a folder path"
        ) from error


@contextmanager
def hold_lock(path: Path, timeout: float) -> Iterator[None]:
    """Hold a lock. Raises WorkerError if it cannot be acquired within `timeout` seconds."""
    until = time.monotonic() + timeout
    try:
        while (descriptor := try_lock(path)) is None:
            if time.monotonic() > until:
                raise WorkerError(
                    f"another process has been trying to start the worker for {timeout:.0f} s ({path}): "
                    "stop that process, or try again"
                )
            time.sleep(0.05)  # flock has no timeout
    except OSError as error:
        raise WorkerError(
            f"cannot lock {path} ({error.strerror}): set {RUNTIME_VARIABLE} to a folder on a local disk"
        ) from error
    try:
        yield
    finally:
        os.close(descriptor)
