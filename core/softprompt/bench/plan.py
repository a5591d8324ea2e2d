"""What is to be measured, and how long. Needs no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from softprompt.bench.prompts import shipped, tuning
from softprompt.bench.results import DEFAULT, OURS, TUNED, WARM
from softprompt.errors import ConfigError

PARTS = ("speed", "time", "soft", "hard")


@dataclass(frozen=True)
class Plan:
    """Which figures, on which prompts, with how much patience. Raises ConfigError for what cannot be measured.

    count: prompts of `time` and `soft`; hard_count: those of `hard`, each of which takes 4 x `seconds` for each k.
    seconds: what every method has for a hard readout. watch: for how long the steps of one comparison are timed.
    batches: sizes of the table of batches; () for what suits the device. patience: seconds after which a training is given up.
    """

    parts: tuple[str, ...] = PARTS
    texts: tuple[str, ...] = field(default_factory=lambda: tuple(shipped()))
    others: tuple[str, ...] = field(default_factory=lambda: tuple(tuning()))
    count: int = 50
    hard_count: int = 50
    seconds: float = 5.0
    watch: float = 10.0
    patience: float = 60.0
    step_batches: tuple[int, ...] = (1, 64)
    batches: tuple[int, ...] = ()
    step_tokens: tuple[int, ...] = (1, 2, 4, 16)
    soft_tokens: tuple[int, ...] = (1, 2, 3, 4, 8)
    soft_methods: tuple[str, ...] = (DEFAULT, WARM, OURS, TUNED)
    hard_tokens: tuple[int, ...] = (4, 8, 16)

    def __post_init__(self) -> None:
        for part in self.parts:
            if part not in PARTS:
                raise ConfigError(f"{part!r} is nothing that is measured; there are {', '.join(PARTS)}")
        for name, count in (
            ("count", self.count),
            ("hard_count", self.hard_count),
            *(("batch", size) for size in (*self.step_batches, *self.batches)),
        ):
            if count < 1:
                raise ConfigError(f"{name} is {count}; it must be at least 1")
        for name in ("seconds", "watch", "patience"):
            value = getattr(self, name)
            if not (math.isfinite(value) and 0 < value <= 86_400):
                raise ConfigError(f"{name} is {value:g}; it must be over 0 and at most 86,400")

    @classmethod
    def full(cls, **others: Any) -> Plan:
        """All figures as they are defined."""
        return cls(**others)

    @classmethod
    def quick(cls, **others: Any) -> Plan:
        """The same figures on few prompts, in about a minute on two cores with `mini`."""
        few: dict[str, Any] = {
            "count": 5,
            "hard_count": 2,
            "seconds": 1.0,
            "watch": 1.0,
            "patience": 8.0,
            "step_tokens": (2,),
        }
        few |= {
            "soft_tokens": (3,),
            "soft_methods": (DEFAULT, OURS, TUNED),
            "hard_tokens": (4, 8),
            "others": tuple(tuning()[:3]),
        }
        return cls(**few | others)

    def as_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold; of the prompts, how many there are."""
        return vars(self) | {"texts": len(self.texts), "others": len(self.others)}
