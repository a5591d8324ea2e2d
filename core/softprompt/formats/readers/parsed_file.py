"""What a file of another program holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from softprompt.prompts.soft_prompt import Array


@dataclass(frozen=True, eq=False)
class ParsedFile:
    """The soft prompts of one file and all that the file says of them.

    Attributes:
        vectors: (k, width) float32 each, by the key that the file gives them: "" where it gives none, the token in diffusers' files,
            "clip_l" and "clip_g" for SDXL.
        said: plain values that JSON can hold, such as name, step, checkpoint, description, author.
        provenance: what this program wrote about each soft prompt, by the same keys; empty for files of other programs.
        beside: the other tensors of such a soft prompt, by the same keys: target, losses, similarities.
        named: whether each key is a name of its own, such as a token, and not a part of what the file is called.
        sha256: of the file.
    """

    format: str
    vectors: dict[str, Array]
    said: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, dict[str, Any]] = field(default_factory=dict)
    beside: dict[str, dict[str, Array]] = field(default_factory=dict)
    named: bool = False
    sha256: str = ""
