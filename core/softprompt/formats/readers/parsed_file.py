"""The parsed contents of a file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from softprompt.prompts.soft_prompt import Array


@dataclass(frozen=True, eq=False)
class ParsedFile:
    """The soft prompts of one file and their metadata.

    Attributes:
        format: a description of the file format.
        vectors: a (k, width) float32 array per soft prompt, by its key in the file: the token in a diffusers file,
            "clip_l" and "clip_g" for SDXL, "" if it has no key.
        metadata: JSON values from the file, such as name, step, checkpoint, description and author.
        provenance: what this program recorded about each soft prompt, by the same keys. Empty for other programs'
            files.
        extra_tensors: the other tensors that this program stores (target, losses, similarities), by the same keys.
        keys_are_names: whether the keys are names of soft prompts, such as tokens, rather than parts of the file.
        sha256: hash of the file's bytes.
    """

    format: str
    vectors: dict[str, Array]
    metadata: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, dict[str, Any]] = field(default_factory=dict)
    extra_tensors: dict[str, dict[str, Array]] = field(default_factory=dict)
    keys_are_names: bool = False
    sha256: str = ""
