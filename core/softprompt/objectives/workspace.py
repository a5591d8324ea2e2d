"""Where an objective keeps what it computes before the first step. Needs no torch."""

from __future__ import annotations


class Workspace:
    """Keeps what an objective computes before the first step, so that a resumed run need not do it again.

    The caller identifies runs by the keys of their tasks; the only run outside a batch has the key "". This base class
    keeps nothing and tells nothing.
    """

    def read(self, run: str, name: str) -> bytes | None:  # noqa: ARG002
        """Return what was written under a name, or None."""
        return None

    def write(self, run: str, name: str, data: bytes) -> None:
        """Keep bytes. Failing to do so is no error, because they can be computed again."""

    def post_stage(self, stage: str) -> None:
        """Tell the user what is going on, such as "sampling answers: 64 of 384". May raise to interrupt the run."""


NO_WORKSPACE = Workspace()
