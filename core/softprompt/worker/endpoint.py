"""Where the worker of a library is met on this host: a private folder with its socket and its locks.

Not XDG_RUNTIME_DIR: that is emptied at the last logout, which is just when the worker must go on.
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
from softprompt.system.locks import take
from softprompt.system.paths import APP, data_folder, make_folder, why_not_ours

VARIABLE = "SOFTPROMPT_RUNTIME"
MAX_PATH_BYTES = 107  # bytes of a Unix socket's path, without the final zero; some systems have 103


class Endpoint:
    """The meeting place of the worker that serves the data folder `home`; `prepare` makes it.

    A relative SOFTPROMPT_RUNTIME is taken from the data folder, so that it is the same place wherever a command is run.
    """

    def __init__(self, home: Path | None = None) -> None:
        self.home = home or data_folder()
        self.folder = _runtime_folder(self.home)
        key = hashlib.sha256(os.fsencode(os.path.realpath(self.home))).hexdigest()[:16]
        self.socket = self.folder / f"{key}.sock"
        self.start_lock = self.folder / f"{key}.start"
        self.worker_lock = self.folder / f"{key}.worker"

    def prepare(self) -> None:
        """Makes the folder, or sees that it is ours and closed to others; raises WorkerError."""
        if len(os.fsencode(self.socket)) > MAX_PATH_BYTES:
            raise WorkerError(
                f"{self.socket} is too long for a socket: set {VARIABLE} to a shorter folder, such as /tmp/me"
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
                f"{self.folder} cannot be made ({error.strerror}): set {VARIABLE} to a folder that you can write to"
            ) from error
        self.check()

    def check(self) -> None:
        """Raises WorkerError where the folder is a link, another user's, or open to others."""
        if wrong := why_not_ours(self.folder):
            raise WorkerError(
                f"{self.folder} {wrong}, and will not be used: `export {VARIABLE}={self._another()}`, then start again"
            )

    def _another(self) -> Path:
        """A folder that would do: its name is short and not taken, and whose it is does not depend on anybody else."""
        names = (Path(f"/tmp/{APP}-{os.geteuid()}-{number}") for number in range(2, 100))
        return next((path for path in names if not os.path.lexists(path) or not why_not_ours(path)), Path("/tmp/me"))


def _runtime_folder(home: Path) -> Path:
    """Raise WorkerError for the home of a user who does not exist."""
    given = os.environ.get(VARIABLE) or f"/tmp/{APP}-{os.geteuid()}"
    try:
        return home.absolute() / Path(given).expanduser()
    except RuntimeError as error:
        raise WorkerError(f"{VARIABLE} is {given!r}, and there is no such user: set it to a folder") from error


@contextmanager
def held(path: Path, within: float) -> Iterator[None]:
    """Waits for a lock and holds it; raises WorkerError where it is not free within so many seconds."""
    until = time.monotonic() + within
    try:
        while (descriptor := take(path)) is None:
            if time.monotonic() > until:
                raise WorkerError(
                    f"another program has been starting the worker for {within:.0f} s ({path}): end it, or try again"
                )
            time.sleep(0.05)  # flock cannot wait for a time
    except OSError as error:
        raise WorkerError(
            f"{path} cannot be locked ({error.strerror}): set {VARIABLE} to a folder on a local disk"
        ) from error
    try:
        yield
    finally:
        os.close(descriptor)
