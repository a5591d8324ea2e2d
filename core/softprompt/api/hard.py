"""Find a hard readout: real words with the same meaning as a prompt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Unpack, get_args

from softprompt import discrete
from softprompt.api.progress import ProgressBar
from softprompt.api.values import as_soft_prompt, check_meaning_is_known
from softprompt.arguments import checked
from softprompt.config import HardConfig, HardSettings, LongPromptPolicy, TrainConfig, check_choice
from softprompt.discrete import HardReport
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.errors import ArgumentError
from softprompt.library.entry import Entry
from softprompt.objectives.base import HardPrompt
from softprompt.objectives.hard_prompt import tokenize_prompt, tokenize_target
from softprompt.prompts.results import HardReadout
from softprompt.prompts.soft_prompt import SoftPrompt
from softprompt.prompts.visible_text import format_number


@checked(settings=HardSettings, renamed={"k": "tokens"})
def find_hard(
    encoder: TextEncoder,
    prompt: SoftPrompt | Entry | str | HardPrompt,
    tokens: int | None = None,
    config: HardConfig | None = None,
    on_report: Callable[[HardReport], bool | None] | None = None,
    *,
    long: LongPromptPolicy = TrainConfig.long,
    progress: bool = False,
    **settings: Unpack[HardSettings],
) -> HardReadout:
    """Find a hard readout of a soft prompt or of a text.

    Args:
        tokens: its length; by default that of `config`, or the number of the soft prompt's tokens.
        config: the settings; `settings` override its fields.
        on_report: called with each report; returns True to stop and keep the best so far.
        long: what to do with a text that is longer than the context length: "refuse", "chunk" or "cut".
        progress: show a progress bar.
        settings: fields of HardConfig, such as seconds=5 or words="ascii".

    Raises:
        PromptError: the hard prompt is unknown or cannot be used.
        ConfigError: the tokens do not fit, or the settings allow no text.

    Example:
        find_hard(encoder, "a red fox in the snow", 4, seconds=5).text
    """
    changes: dict[str, Any] = dict(settings)
    config = replace(config, **changes) if config is not None else HardConfig(**changes)
    target = as_hard_prompt(encoder, prompt, long)
    soft_prompt = as_soft_prompt(prompt) if isinstance(prompt, SoftPrompt | Entry) else None
    if tokens is not None:
        config = replace(config, tokens=tokens)  # checks the bounds
    count = config.tokens or (soft_prompt.tokens if soft_prompt is not None else None)
    if count is None:
        raise ArgumentError("find_hard needs the argument 'tokens' if the prompt is a text, such as tokens=8")
    with ProgressBar(progress, "hard readout", "round") as bar:
        return discrete.find_hard(encoder, target, count, config, bar.watch(_figures, on_report))


def as_hard_prompt(
    encoder: TextEncoder, prompt: SoftPrompt | Entry | str | HardPrompt, long: LongPromptPolicy
) -> HardPrompt:
    """Tokenize a text, or the hard prompt of a soft prompt, which keeps its own policy for long prompts.

    Raises PromptError if the hard prompt is unknown or cannot be used.
    """
    check_choice("long", long, get_args(LongPromptPolicy))
    if isinstance(prompt, HardPrompt):
        size = encoder.tower.table.shape[0]
        if not all(0 <= token < size for chunk in prompt.chunks for token in chunk):
            raise ArgumentError(f"prompt has token ids that {encoder.name} does not have; expected 0 to {size - 1:,}")
        return prompt
    if isinstance(prompt, str):
        return tokenize_prompt(encoder, prompt, long)
    soft_prompt = as_soft_prompt(prompt)
    check_meaning_is_known(soft_prompt)
    saved = soft_prompt.config.get("long", long)
    return tokenize_target(encoder, soft_prompt.hard_prompt, soft_prompt.meanings, saved)


def _figures(report: HardReport) -> dict[str, str]:
    return {"similarity": format_number(report.similarity), "text": report.text}
