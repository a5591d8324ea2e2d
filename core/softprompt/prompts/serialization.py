"""Convert the parts of a soft prompt to JSON values, and check the values and tensors read from a file."""

from __future__ import annotations

from typing import Any

import numpy as np

from softprompt.prompts.examples import source_from_dict
from softprompt.prompts.lineage import MAX_WEIGHTED_TEXTS, ancestor_from_dict, meanings_from_dicts
from softprompt.prompts.results import (
    AnswerFidelity,
    AnswerSample,
    AnswerScore,
    ContextFidelity,
    ContextScore,
    ExampleFidelity,
    ExampleSample,
    ExampleScore,
    HardReadout,
    Neighbour,
    ReadoutToken,
)
from softprompt.prompts.validation import check_config, check_source, check_texts, check_time, parse_number
from softprompt.prompts.values import Array


def parse_fields(values: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a soft prompt, without its tensors, from the values of `SoftPrompt.as_dict`.

    Raises KeyError, TypeError or ValueError for invalid values.
    """
    composition = values["composition"]
    for key, kinds in _PLAIN_TYPES.items():
        if not isinstance(values[key], kinds) or isinstance(values[key], bool):
            raise TypeError(f"{key} cannot be {str(values[key])[:40]}")
        if kinds != _TEXT and isinstance(values[key], (int, float)) and not abs(values[key]) < 1e300:
            raise ValueError(f"{key} is out of bounds")
    if min(values["steps"], values["seconds"]) < 0:
        raise ValueError("its steps or seconds must not be negative")
    check_time(values["created"])
    check_config(values["config"])
    check_texts("versions", values["versions"])
    # old entries have neither source nor meanings
    source, meanings = dict(values.get("source", {})), meanings_from_dicts(values.get("meanings", ()))
    check_source(source)
    if len(meanings) > MAX_WEIGHTED_TEXTS:
        raise ValueError(f"it has more than {MAX_WEIGHTED_TEXTS} meanings")
    return {
        "composition": None if composition is None else _fidelity_from_dict(composition),
        "readout": tuple(map(_readout_token_from_dict, values["readout"])),
        "warnings": tuple(map(str, values["warnings"])),
        "hidden": {str(family): parse_number(value) for family, value in values.get("hidden", {}).items()},
        "ancestry": tuple(ancestor_from_dict(ancestor) for ancestor in values.get("ancestry", ())),
        "source": source,
        "meanings": meanings,
        "hard": None if values.get("hard") is None else _hard_readout_from_dict(values["hard"]),
        "answers": None if values.get("answers") is None else _answers_from_dict(values["answers"]),
        "examples": None if values.get("examples") is None else _examples_from_dict(values["examples"]),
        **{key: values[key] for key in _PLAIN_TYPES},
    }


def fidelity_as_dict(fidelity: ContextFidelity) -> dict[str, Any]:
    return {
        "mean": fidelity.mean,
        "worst": fidelity.worst,
        "floor": fidelity.floor,
        "contexts": [vars(score).copy() for score in fidelity.contexts],
    }


def _fidelity_from_dict(values: dict[str, Any]) -> ContextFidelity:
    return ContextFidelity(
        tuple(
            ContextScore(str(score["context"]), parse_number(score["similarity"]), parse_number(score["floor"]))
            for score in values["contexts"]
        )
    )


def readout_token_as_dict(token: ReadoutToken) -> dict[str, Any]:
    return {
        "token": token.token,
        "cosine": token.cosine,
        "alternatives": [vars(neighbour).copy() for neighbour in token.alternatives],
    }


def _readout_token_from_dict(values: dict[str, Any]) -> ReadoutToken:
    alternatives = (
        Neighbour(str(neighbour["token"]), parse_number(neighbour["cosine"])) for neighbour in values["alternatives"]
    )
    return ReadoutToken(str(values["token"]), parse_number(values["cosine"]), tuple(alternatives))


def check_shapes(vectors: Array, target: Array, losses: Array, similarities: Array) -> None:
    """Raise ValueError unless the tensors of a soft prompt have the right shapes."""
    if vectors.ndim != 2 or not vectors.size:
        raise ValueError(f"vectors has the shape {vectors.shape}; it must be (tokens, width)")
    for name, array in (("target", target), ("losses", losses), ("similarities", similarities)):
        if array.ndim != 1:
            raise ValueError(f"{name} has the shape {array.shape}; it must have one dimension")
    if losses.shape != similarities.shape:
        counts = f"losses has {len(losses):,} values, similarities {len(similarities):,}"
        raise ValueError(f"{counts}; both must have one value per step")


def check_finite(**tensors: Array) -> None:
    """Raise ValueError if a tensor has a value that is not finite."""
    for name, array in tensors.items():
        if not np.isfinite(array).all():
            raise ValueError(f"{name} contains a number that is not finite")


def _hard_readout_from_dict(values: dict[str, Any]) -> HardReadout:
    check_texts("a hard readout's text and method", {key: values[key] for key in ("text", "method")})
    tokens, evaluated = values["tokens"], values["evaluated"]
    if type(tokens) is not int or type(evaluated) is not int or min(tokens, evaluated) < 0:
        raise TypeError("a hard readout's counts must be non-negative integers")
    composed = None if values["composed"] is None else parse_number(values["composed"])
    similarity, seconds = parse_number(values["similarity"]), parse_number(values["seconds"])
    return HardReadout(values["text"], tokens, similarity, composed, values["method"], evaluated, seconds)


def answers_as_dict(answers: AnswerFidelity) -> dict[str, Any]:
    return {
        "placement": answers.placement,
        "template": answers.template,
        "questions": answers.questions,
        "score": vars(answers.score).copy(),
        "floors": {name: vars(score).copy() for name, score in answers.floors.items()},
        "samples": [vars(sample).copy() for sample in answers.samples],
    }


def _answers_from_dict(values: dict[str, Any]) -> AnswerFidelity:
    texts = {key: values[key] for key in ("placement", "template")}
    check_texts("a language model's placement and template", texts)
    if type(values["questions"]) is not int or values["questions"] < 1:
        raise TypeError("the number of held-out questions must be a positive integer")
    samples = []
    for sample in values["samples"]:
        check_texts("the sampled answers", sample)
        samples.append(AnswerSample(sample["question"], sample["soft"], sample["hard"], sample["none"]))
    return AnswerFidelity(
        **texts,
        questions=values["questions"],
        score=_score_from_dict(values["score"]),
        floors={str(name): _score_from_dict(score) for name, score in values["floors"].items()},
        samples=tuple(samples),
    )


def _score_from_dict(values: dict[str, Any]) -> AnswerScore:
    return AnswerScore(parse_number(values["kl"]), parse_number(values["agreement"]))


def examples_as_dict(examples: ExampleFidelity) -> dict[str, Any]:
    return {
        "placement": examples.placement,
        "template": examples.template,
        "training": vars(examples.training).copy(),
        "held_out": vars(examples.held_out).copy(),
        "shots": examples.shots,
        "score": vars(examples.score).copy(),
        "floors": {name: vars(score).copy() for name, score in examples.floors.items()},
        "samples": [vars(sample).copy() for sample in examples.samples],
    }


def _examples_from_dict(values: dict[str, Any]) -> ExampleFidelity:
    texts = {key: values[key] for key in ("placement", "template")}
    check_texts("a language model's placement and template", texts)
    if type(values["shots"]) is not int or values["shots"] < 0:
        raise TypeError("the number of examples in the few-shot prompt must be a non-negative integer")
    samples = []
    for sample in values["samples"]:
        check_texts("the samples of held-out examples", sample)
        texts_of_sample = (sample[key] for key in ("input", "output", "soft", "few_shot", "none"))
        samples.append(ExampleSample(*texts_of_sample))
    return ExampleFidelity(
        **texts,
        training=source_from_dict(values["training"]),
        held_out=source_from_dict(values["held_out"]),
        shots=values["shots"],
        score=_example_score_from_dict(values["score"]),
        floors={str(name): _example_score_from_dict(score) for name, score in values["floors"].items()},
        samples=tuple(samples),
    )


def _example_score_from_dict(values: dict[str, Any]) -> ExampleScore:
    return ExampleScore(parse_number(values["loss"]), parse_number(values["accuracy"]))


_TEXT, _NUMBER, _OPTIONAL_NUMBER = (str,), (int, float), (int, float, type(None))
_PLAIN_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(
        ("name", "hard_prompt", "model", "model_fingerprint", "stopped", "readout_text", "created", "device"), _TEXT
    ),
    "seconds": _NUMBER,
    **dict.fromkeys(("similarity", "loss", "readout_similarity"), _OPTIONAL_NUMBER),
    "steps": (int,),
    "config": (dict,),
    "versions": (dict,),
}
