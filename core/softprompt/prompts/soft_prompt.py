"""The soft prompt: k vectors with everything that is known of where they come from. Needs numpy, not torch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from softprompt.prompts.lineage import MOST_MEANINGS, Meaning, ancestor_of, meanings_of
from softprompt.prompts.lineage import Ancestor as Ancestor
from softprompt.prompts.results import Composition, ContextGrade, HardReadout, Neighbour, ReadoutToken
from softprompt.prompts.validation import check_config, check_source, check_texts, check_time, number

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
    composition: Composition | None
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
    meanings: tuple[Meaning, ...] = ()
    hard: HardReadout | None = None

    @property
    def written_out(self) -> tuple[Meaning, ...]:
        """What it means, as texts whose shares are 1 together; () where that is not known."""
        return self.meanings or ((Meaning(self.hard_prompt, 1.0),) if self.hard_prompt else ())

    @property
    def tokens(self) -> int:
        return int(self.vectors.shape[0])

    @property
    def steps_per_second(self) -> float:
        return self.steps / self.seconds if self.seconds else 0.0

    def named(self, name: str) -> SoftPrompt:
        return replace(self, name=name)

    def summary(self) -> dict[str, Any]:
        """Everything but the tensors, as plain values that JSON can hold."""
        composition = None if self.composition is None else {
            "mean": self.composition.mean,
            "worst": self.composition.worst,
            "floor": self.composition.floor,
            "contexts": [vars(grade).copy() for grade in self.composition.contexts],
        }  # fmt: skip
        readout = [
            {"token": r.token, "cosine": r.cosine, "alternatives": [vars(near).copy() for near in r.alternatives]}
            for r in self.readout
        ]
        return {
            "name": self.name,
            "hard_prompt": self.hard_prompt,
            "model": self.model,
            "model_fingerprint": self.model_fingerprint,
            "tokens": self.tokens,
            "similarity": self.similarity,
            "composition": composition,
            "loss": self.loss,
            "steps": self.steps,
            "seconds": self.seconds,
            "steps_per_second": self.steps_per_second,
            "stopped": self.stopped,
            "readout": readout,
            "readout_text": self.readout_text,
            "readout_similarity": self.readout_similarity,
            "created": self.created,
            "device": self.device,
            "config": self.config,
            "versions": self.versions,
            "warnings": list(self.warnings),
            "hidden": self.hidden,
            "ancestry": [vars(one).copy() for one in self.ancestry],
            "source": self.source,
            "meanings": [vars(one).copy() for one in self.meanings],
            "hard": None if self.hard is None else vars(self.hard).copy(),
        }

    @classmethod
    def from_summary(
        cls, values: dict[str, Any], vectors: Array, target: Array, losses: Array, similarities: Array
    ) -> SoftPrompt:
        """The inverse of `summary`, with the tensors. Raises KeyError, TypeError or ValueError for values of another shape."""
        composition = values["composition"]
        for key, kinds in _PLAIN.items():
            if not isinstance(values[key], kinds) or isinstance(values[key], bool):
                raise TypeError(f"{key} is {str(values[key])[:40]}")
            if kinds != _TEXT and isinstance(values[key], (int, float)) and not abs(values[key]) < 1e300:
                raise ValueError(f"{key} is out of bounds")
        check_tensors(vectors, target, losses, similarities)
        if min(values["steps"], values["seconds"]) < 0:
            raise ValueError("its steps or seconds are below 0")
        check_time(values["created"])
        check_config(values["config"])
        check_texts("versions", values["versions"])
        # entries of before these were known have none
        source, meanings = dict(values.get("source", {})), meanings_of(values.get("meanings", ()))
        check_source(source)
        if len(meanings) > MOST_MEANINGS:
            raise ValueError(f"it means more than {MOST_MEANINGS} texts together")
        return cls(
            vectors=vectors,
            target=target,
            losses=losses,
            similarities=similarities,
            composition=None
            if composition is None
            else Composition(
                tuple(
                    ContextGrade(str(g["context"]), number(g["similarity"]), number(g["floor"])) for g in composition["contexts"]
                )
            ),
            readout=tuple(
                ReadoutToken(
                    str(r["token"]),
                    number(r["cosine"]),
                    tuple(Neighbour(str(near["token"]), number(near["cosine"])) for near in r["alternatives"]),
                )
                for r in values["readout"]
            ),
            warnings=tuple(map(str, values["warnings"])),
            hidden={str(family): number(value) for family, value in values.get("hidden", {}).items()},
            ancestry=tuple(ancestor_of(one) for one in values.get("ancestry", ())),
            source=source,
            meanings=meanings,
            hard=None if values.get("hard") is None else _hard_of(values["hard"]),
            **{key: values[key] for key in _PLAIN},
        )


def check_tensors(vectors: Array, target: Array, losses: Array, similarities: Array) -> None:
    """Check the four tensors of a soft prompt: their shapes, and that every number is finite. Raises ValueError, naming one."""
    if vectors.ndim != 2 or not vectors.size:
        raise ValueError(f"vectors has the shape {vectors.shape}; (tokens, width) is expected")
    for name, array in (("target", target), ("losses", losses), ("similarities", similarities)):
        if array.ndim != 1:
            raise ValueError(f"{name} has the shape {array.shape}; one dimension is expected")
    if losses.shape != similarities.shape:
        counts = f"losses has {len(losses):,} values, similarities {len(similarities):,}"
        raise ValueError(f"{counts}: there must be one of each for every step")
    for name, array in (("vectors", vectors), ("target", target), ("losses", losses), ("similarities", similarities)):
        if not np.isfinite(array).all():
            raise ValueError(f"{name} holds a number that is not finite")


def _hard_of(values: dict[str, Any]) -> HardReadout:
    check_texts("a hard readout's text and method", {key: values[key] for key in ("text", "method")})
    tokens, evaluated = values["tokens"], values["evaluated"]
    if type(tokens) is not int or type(evaluated) is not int or min(tokens, evaluated) < 0:
        raise TypeError("a hard readout's counts are no whole numbers")
    composed = None if values["composed"] is None else number(values["composed"])
    similarity, seconds = number(values["similarity"]), number(values["seconds"])
    return HardReadout(values["text"], tokens, similarity, composed, values["method"], evaluated, seconds)


_TEXT, _NUMBER, _MAYBE = (str,), (int, float), (int, float, type(None))
_PLAIN: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("name", "hard_prompt", "model", "model_fingerprint", "stopped", "readout_text", "created", "device"), _TEXT),
    "seconds": _NUMBER,
    **dict.fromkeys(("similarity", "loss", "readout_similarity"), _MAYBE),
    "steps": (int,),
    "config": (dict,),
    "versions": (dict,),
}
