"""A benchmark plan: what to measure, and for how long. Needs no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from softprompt.bench.prompts import shipped_prompts, tuning_prompts
from softprompt.bench.results import DEFAULT, OURS, TUNED, WARM
from softprompt.errors import ConfigError

PARTS = ("speed", "time", "soft", "hard")


@dataclass(frozen=True)
class Plan:
    """The measurements, prompts and time limits of a benchmark. Raises ConfigError for invalid values.

    Attributes:
        others: prompts used only to tune the peers' settings.
        count: number of prompts for the parts "time" and "soft".
        hard_count: number of prompts for the part "hard"; each takes 4 x `seconds` per k.
        seconds: time for each method to find a hard readout.
        watch: seconds spent timing the steps of one comparison.
        patience: seconds after which a training run is abandoned.
        batches: batch sizes to measure; () chooses sizes that suit the device.
    """

    parts: tuple[str, ...] = PARTS
    texts: tuple[str, ...] = field(default_factory=lambda: tuple(shipped_prompts()))
    others: tuple[str, ...] = field(default_factory=lambda: tuple(tuning_prompts()))
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
                raise ConfigError(f"{part!r} is not a benchmark part. Choose from {', '.join(PARTS)}.")
        for name, count in (
            ("count", self.count),
            ("hard_count", self.hard_count),
            *(("batch", size) for size in (*self.step_batches, *self.batches)),
        ):
            if count < 1:
                raise ConfigError(f"{name} is {count}; it must be at least 1.")
        for name in ("seconds", "watch", "patience"):
            value = getattr(self, name)
            if not (math.isfinite(value) and 0 < value <= 86_400):
                raise ConfigError(f"{name} is {value:g}; it must be greater than 0 and at most 86,400.")

    @classmethod
    def full(cls, **overrides: Any) -> Plan:
        """Return the full benchmark."""
        return cls(**overrides)

    @classmethod
    def quick(cls, **overrides: Any) -> Plan:
        """Return the same benchmark with few prompts. It takes about a minute on two cores with `mini`."""
        settings: dict[str, Any] = {
            "count": 5,
            "hard_count": 2,
            "seconds": 1.0,
            "watch": 1.0,
            "patience": 8.0,
            "step_tokens": (2,),
        }
        settings |= {
            "soft_tokens": (3,),
            "soft_methods": (DEFAULT, OURS, TUNED),
            "hard_tokens": (4, 8),
            "others": tuple(tuning_prompts()[:3]),
        }
        return cls(**settings | overrides)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, with the number of prompts instead of their texts."""
        return vars(self) | {"texts": len(self.texts), "others": len(self.others)}
