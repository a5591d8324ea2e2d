"""Soft prompts to plain values and back. The tensors travel beside them."""

from __future__ import annotations

from typing import Any

import numpy as np

from softprompt.prompts.lineage import MAX_WEIGHTED_TEXTS, ancestor_of, meanings_of
from softprompt.prompts.results import ContextFidelity, ContextScore, HardReadout, Neighbour, ReadoutToken
from softprompt.prompts.soft_prompt import Array, SoftPrompt
from softprompt.prompts.validation import check_config, check_source, check_texts, check_time, number


def to_dict(prompt: SoftPrompt) -> dict[str, Any]:
    """Everything but the tensors, as plain values that JSON can hold."""
    composition = None if prompt.composition is None else {
        "mean": prompt.composition.mean,
        "worst": prompt.composition.worst,
        "floor": prompt.composition.floor,
        "contexts": [vars(grade).copy() for grade in prompt.composition.contexts],
    }  # fmt: skip
    readout = [
        {"token": r.token, "cosine": r.cosine, "alternatives": [vars(near).copy() for near in r.alternatives]}
        for r in prompt.readout
    ]
    return {
        "name": prompt.name,
        "hard_prompt": prompt.hard_prompt,
        "model": prompt.model,
        "model_fingerprint": prompt.model_fingerprint,
        "tokens": prompt.tokens,
        "similarity": prompt.similarity,
        "composition": composition,
        "loss": prompt.loss,
        "steps": prompt.steps,
        "seconds": prompt.seconds,
        "steps_per_second": prompt.steps_per_second,
        "stopped": prompt.stopped,
        "readout": readout,
        "readout_text": prompt.readout_text,
        "readout_similarity": prompt.readout_similarity,
        "created": prompt.created,
        "device": prompt.device,
        "config": prompt.config,
        "versions": prompt.versions,
        "warnings": list(prompt.warnings),
        "hidden": prompt.hidden,
        "ancestry": [vars(one).copy() for one in prompt.ancestry],
        "source": prompt.source,
        "meanings": [vars(one).copy() for one in prompt.meanings],
        "hard": None if prompt.hard is None else vars(prompt.hard).copy(),
    }


def from_dict(values: dict[str, Any], vectors: Array, target: Array, losses: Array, similarities: Array) -> SoftPrompt:
    """The inverse of `to_dict`, with the tensors. Raises KeyError, TypeError or ValueError for values of another shape."""
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
    if len(meanings) > MAX_WEIGHTED_TEXTS:
        raise ValueError(f"it means more than {MAX_WEIGHTED_TEXTS} texts together")
    return SoftPrompt(
        vectors=vectors,
        target=target,
        losses=losses,
        similarities=similarities,
        composition=None
        if composition is None
        else ContextFidelity(
            tuple(
                ContextScore(str(g["context"]), number(g["similarity"]), number(g["floor"]))
                for g in composition["contexts"]
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
    **dict.fromkeys(
        ("name", "hard_prompt", "model", "model_fingerprint", "stopped", "readout_text", "created", "device"), _TEXT
    ),
    "seconds": _NUMBER,
    **dict.fromkeys(("similarity", "loss", "readout_similarity"), _MAYBE),
    "steps": (int,),
    "config": (dict,),
    "versions": (dict,),
}
