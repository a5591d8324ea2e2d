"""The soft prompt: k vectors with everything that is known of where they come from. Needs numpy, not torch."""

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
    """A soft prompt with its provenance; immutable.

    vectors (k, width), target (embed_dim,) of unit length, losses and similarities (steps,): all float32. `model_fingerprint`
    tells weights of one model name apart. `composition` is None where no context has room for the hard prompt. `hidden` is the
    hidden-state similarity by the family of consumers that reads such states. `meanings` are the texts of one that was trained on several,
    whose `hard_prompt` is then for people to read. One that came from a file does not know everything: what is unknown is "", None,
    or a tensor of no elements, and `source` is what the file said of itself.
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
        """What it means, as texts whose shares are 1 together; () where that is not known."""
        return self.meanings or ((WeightedText(self.hard_prompt, 1.0),) if self.hard_prompt else ())

    @property
    def tokens(self) -> int:
        return int(self.vectors.shape[0])

    @property
    def steps_per_second(self) -> float:
        return self.steps / self.seconds if self.seconds else 0.0

    def named(self, name: str) -> SoftPrompt:
        return replace(self, name=name)
