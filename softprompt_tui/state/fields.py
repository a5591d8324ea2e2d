"""The fields of the prompt pane and of the training settings: what each value means, allows and defaults to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from softprompt.text_states import FAMILY_NAMES
from softprompt_tui.state.settings import DEFAULT_MODEL, Settings

if TYPE_CHECKING:
    from softprompt.config import ModelKind

# as in softprompt.config, which takes 7 ms to import
MAX_STEPS, MAX_RESTARTS, MAX_HARD_TOKENS, MAX_SWEPT_COUNTS, DEFAULT_RATE = 100_000, 256, 64, 64, 1.0
DEFAULT_SWEEP, CAUSAL_SWEEP = "1-16", "1,2,4,8,16"
_TYPED = Settings().train  # the defaults of the prompt pane
# the defaults of a text encoder and of a language model, where they differ: in the prompt pane, and further ones
KIND_DEFAULTS = {
    "text": {name: _TYPED[name] for name in ("tokens", "steps", "contexts")},
    "causal": {"tokens": "16", "steps": "160", "contexts": "no"},  # it asks questions instead
}
_CAUSAL_DEFAULTS = {"rate": "0.3", "init": "first", "sweep": CAUSAL_SWEEP}


@dataclass(frozen=True)
class Field:
    """A value that the user types or chooses.

    Attributes:
        allowed: what may be typed. Empty for a choice.
        choices: the values to choose from, each with its meaning. Empty for a text.
        other: a text that may be typed instead of a choice, in one word, or "".
        example: an example of that text.
        kind: the only kind of model that has the setting, or "" for both.
    """

    label: str
    meaning: str
    allowed: str = ""
    default: str = ""
    choices: Mapping[str, str] = field(default_factory=dict)
    other: str = ""
    example: str = ""
    kind: ModelKind | Literal[""] = ""

    def explain(self, value: str = "") -> str:
        """Return what the value means, what is allowed, and the default. Of a choice, the chosen value's meaning."""
        if value in self.choices:
            words = [self.choices[value]]
        elif self.choices and self.other:
            words = [self.allowed]
        else:
            words = [self.meaning, self.allowed]
        return "; ".join(filter(None, (*words, self.default and f"default {self.default}")))


PROMPT_FIELDS = {
    "tokens": Field("tokens", "number of soft tokens", "1 to 75, or auto", _TYPED["tokens"]),
    "steps": Field("steps", "training steps at most", f"1 to {MAX_STEPS:,}", _TYPED["steps"]),
    "stop_at": Field("stop at", "similarity that is enough", "such as .99; empty: take all steps", _TYPED["stop_at"]),
    "contexts": Field(
        "contexts",
        "train inside sentences",
        "your own sentences, split by |",
        _TYPED["contexts"],
        {"yes": "train inside sentences too", "no": "train alone"},
        other="own",
        example="a photo of {} | {} at night",
    ),
    "device": Field("device", "where to train", "auto, cpu, cuda, cuda:1 or mps", _TYPED["device"]),
    "model": Field("model", "the model", "a name (^o), hf:OWNER/NAME or a folder", DEFAULT_MODEL),
}

# the training settings that the prompt pane does not show, by group
MORE_GROUPS: dict[str, dict[str, Field]] = {
    "training": {
        "name": Field("name", "name in the library", "empty: made from the prompt"),
        "restarts": Field("restarts", "trained together; the best one is saved", f"1 to {MAX_RESTARTS}", "1"),
        "rate": Field("rate", "learning rate, in std of embeddings", "up to 100", f"{DEFAULT_RATE:g}"),
        "init": Field(
            "init",
            "where the soft tokens start",
            default="noise",
            choices={
                "noise": "noise as wide as the token embeddings",
                "vocabulary": "tokens drawn at random",
                "prompt": "tokens spread over the prompt",
                "first": "the prompt's first tokens",
            },
        ),
        "patience": Field("patience", "steps without progress before it stops", "1 or more; empty: never"),
        "norms": Field(
            "norms",
            "length of the soft tokens",
            default="held",
            choices={"held": "at most as long as a typical token", "free": "as long as they grow"},
        ),
        "seed": Field("seed", "seed of all random choices", "0 or more", "0"),
        "precision": Field(
            "precision",
            "number format of the model",
            default="float32",
            choices={"float32": "exact", "bfloat16": "half the memory, less exact"},
        ),
    },
    "objective": {
        "objective": Field(
            "objective",
            "what training minimizes",
            default="cosine",
            choices={
                "cosine": "cosine distance to the prompt's embedding",
                "hidden": "distance of the states that image programs read",
                "mixed": "hidden and cosine, weighted by share",
                "mse": "squared error to the prompt's embedding",
                "contrastive": "cosine, and away from other prompts",
            },
            kind="text",
        ),
        "family": Field(
            "family",
            "for hidden and mixed: the image program",
            default="sd1",
            choices={family: f"what {name} reads; for hidden and mixed" for family, name in FAMILY_NAMES.items()},
            kind="text",
        ),
        "share": Field("share", "for mixed: weight of hidden", "between 0 and 1", "0.3", kind="text"),
        "against": Field("against", "for contrastive: prompts to avoid", "split by |", kind="text"),
    },
    "prompt": {
        "plain": Field(
            "plain",
            "drop weights, LoRA tags, wildcards",
            default="no",
            choices={"no": "train the prompt as typed", "yes": "drop weights, LoRA tags and wildcards first"},
        ),
        "long": Field(
            "long",
            "what to do with an overlong prompt",
            default="refuse",
            choices={
                "refuse": "say what does not fit",
                "chunk": "train on the mean of its parts",
                "cut": "train on its beginning",
            },
            kind="text",
        ),
    },
    "language model": {
        "placement": Field(
            "placement",
            "where the soft tokens stand",
            default="system",
            choices={
                "system": "in place of the system text",
                "user": "before the user's text",
                "start": "before a plain text, without a template",
            },
            kind="causal",
        ),
        "questions": Field("questions", "a file of questions to answer", "one a line; empty: built-in", kind="causal"),
        "self_study": Field("study", "questions that the model itself adds", "0 to 1,000", "0", kind="causal"),
    },
    "hard readout": {
        "hard": Field(
            "hard",
            "search for one after training",
            f"number of tokens, 1 to {MAX_HARD_TOKENS}",
            "no",
            {"no": "only on x in the readout", "yes": "after training, with as many tokens"},
            other="count",
            example="8",
            kind="text",
        ),
        "words": Field(
            "words",
            "the tokens to use",
            default="any",
            choices={"any": "every token", "ascii": "tokens of ASCII characters", "dictionary": "whole words"},
            kind="text",
        ),
        "block": Field("block", "words to avoid", "split by |", kind="text"),
    },
    "sweep": {
        "sweep": Field(
            "sweep", "token counts for F7", f"such as 1,2,4 or 1-16; at most {MAX_SWEPT_COUNTS}", DEFAULT_SWEEP
        ),
    },
}
MORE_FIELDS = {name: field for group in MORE_GROUPS.values() for name, field in group.items()}


def settings_of(kind: ModelKind) -> dict[str, Field]:
    """Return the training settings that a kind of model has, with the defaults that they have there."""
    defaults = _CAUSAL_DEFAULTS if kind == "causal" else {}
    return {
        name: replace(field, default=defaults.get(name, field.default))
        for name, field in MORE_FIELDS.items()
        if field.kind in ("", kind)
    }


def changed_settings(values: Mapping[str, str], kind: ModelKind) -> dict[str, str]:
    """Return the values that a kind of model uses and that differ from its defaults."""
    fields = settings_of(kind)
    return {name: value for name, value in values.items() if name in fields and value != fields[name].default}


def explained_settings() -> list[tuple[str, str]]:
    """Return the labels of all training settings, each with its explanation and the models that have it."""
    kinds = {"": "", "text": "", "causal": "language models: "}
    return [(field.label, f"{kinds[field.kind]}{field.explain()}") for field in MORE_FIELDS.values()]
