"""What a file of another program holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from softprompt.prompt import Array


@dataclass(frozen=True, eq=False)
class Found:
    """The vectors of one file and all that it says of them.

    `vectors`: (k, width) float32 each, by what they are called in the file: "" where there is one without a name, the token in
    diffusers' files, "clip_l" and "clip_g" for SDXL. `said`: plain values that JSON can hold, such as name, step, checkpoint,
    description, author; and `provenance`, where the file was written by this program, with the other tensors of a soft prompt `beside`
    its vectors: target, losses, similarities. `sha256` is the file's.
    """

    format: str
    vectors: dict[str, Array]
    said: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] | None = None
    beside: dict[str, Array] = field(default_factory=dict)
    sha256: str = ""
