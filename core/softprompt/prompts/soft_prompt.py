"""The soft prompt: k vectors and their provenance. Needs numpy, but not torch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from softprompt.prompts.lineage import Ancestor as Ancestor
from softprompt.prompts.lineage import WeightedText
from softprompt.prompts.results import ContextFidelity, HardReadout, ReadoutToken

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class SoftPrompt:
    """An immutable soft prompt with its provenance.

    The provenance of an imported soft prompt can be incomplete: unknown values are "", None or an empty tensor.

    Attributes:
        hard_prompt: the prompt it stands for; for a mix, a readable summary.
        model_fingerprint: identifies the weights, because models with the same name can differ.
        vectors: (k, width) float32.
        target: (embed_dim,) float32, of unit length.
        losses, similarities: (steps,) float32.
        composition: fidelity in contexts, or None if the prompt fits into no context.
        hidden: hidden-state similarity for each family of image programs.
        source: metadata of the imported file.
        meanings: the weighted texts of a mix; () for a single prompt.
    """

    hard_prompt: str
    model: str
    model_fingerprint: str
    vectors: Array
    target: Array
    losses: Array
    similarities: Array
    similarity: float | None
    composition: ContextFidelity | None
    loss: float | None
    steps: int
    seconds: float
    stopped: str
    readout: tuple[ReadoutToken, ...]
    readout_text: str
    readout_similarity: float | None
    config: dict[str, Any]
    warnings: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    device: str = ""
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="microseconds"))
    name: str = ""
    hidden: dict[str, float] = field(default_factory=dict)
    ancestry: tuple[Ancestor, ...] = ()
    source: dict[str, Any] = field(default_factory=dict)
    meanings: tuple[WeightedText, ...] = ()
    hard: HardReadout | None = None

    @property
    def reference_texts(self) -> tuple[WeightedText, ...]:
        """The texts that the soft prompt stands for, with weights that sum to 1, or () if unknown."""
        return self.meanings or ((WeightedText(self.hard_prompt, 1.0),) if self.hard_prompt else ())

    @property
    def tokens(self) -> int:
        return int(self.vectors.shape[0])

    @property
    def steps_per_second(self) -> float:
        return self.steps / self.seconds if self.seconds else 0.0

    def named(self, name: str) -> SoftPrompt:
        return replace(self, name=name)
