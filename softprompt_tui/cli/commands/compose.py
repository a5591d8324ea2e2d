"""`softprompt-tui compose`."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import click

from softprompt.config import TrainConfig, config_for
from softprompt.encoders.catalog import MINI, model_kind
from softprompt.errors import ConfigError, PromptError
from softprompt.jobs.job import job_from_composition
from softprompt.text_states import ImageProgram
from softprompt_tui.cli.commands.runs import resolve_model, submit
from softprompt_tui.cli.commands.train import train_here
from softprompt_tui.cli.common import (
    complete_entry,
    complete_model,
    device_option,
    json_option,
    library,
    load_text_encoder,
    print_json,
)
from softprompt_tui.cli.options import choice
from softprompt_tui.cli.report import print_line
from softprompt_tui.rendering.numbers import format_number
from softprompt_tui.rendering.provenance import UNKNOWN

if TYPE_CHECKING:
    from softprompt.composition.composer import CompositionScore
    from softprompt.composition.sentence import ParsedPrompt

OBJECTIVES = ("cosine", "mse", "hidden", "mixed")


@click.command()
@click.argument("template")
@click.option(
    "--with",
    "opened",
    metavar="NAME",
    shell_complete=complete_entry,
    help="The soft prompt whose tokens are [v1], [v2], …",
)
@click.option("--against", multiple=True, metavar="TEXT", help="A text to compare the composition with. Repeatable.")
@click.option("--save", metavar="NAME", help="Train one soft prompt for the whole composition, and save it under NAME.")
@click.option("--tokens", "-k", type=int, metavar="N", help="Number of soft tokens for --save, as in `train`.")
@click.option("--steps", type=int, help="Optimizer steps for --save, as in `train`.")
@click.option("--seed", type=int, help="Random seed for --save, as in `train`.")
@click.option(
    "--objective",
    type=click.Choice(OBJECTIVES),
    help="Objective for --save, as in `train`. A mix supports cosine only.",
)
@click.option("--family", type=choice(ImageProgram), help="The program whose hidden states to compare, as in `train`.")
@click.option("--hidden-share", type=float, help="Weight of the hidden states in the mixed objective, as in `train`.")
@click.option(
    "--model",
    metavar="NAME",
    shell_complete=complete_model,
    help="The text encoder. By default, that of the soft prompts.",
)
@device_option
@click.option("--background", "-b", is_flag=True, help="Let the worker do the training of --save. Prints the run's id.")
@json_option
@click.option("--quiet", "-q", is_flag=True, help="Do not show progress.")
def compose(
    template: str,
    opened: str | None,
    against: tuple[str, ...],
    save: str | None,
    model: str | None,
    device: str,
    background: bool,
    as_json: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Use soft prompts as words, and compare TEMPLATE with the same sentence with all prompts written out.

    [name] is a saved soft prompt, [name:2] its second soft token, [name:1-3] its first three, [a*.6 + b*.4] a mix by
    weight, and \\[ a plain bracket. Without --save, a mix is approximated by the mean of the vectors; --save trains it.

    \b
    Examples:
      softprompt-tui compose "[landscape] mountain view" --against "a red car"
      softprompt-tui compose "[fox] in the style of [stained glass]"
      softprompt-tui compose "[landscape*.6 + night*.4]" --save evening
      softprompt-tui compose "[v1][v2] at night" --with landscape
    """  # fmt: skip
    settings = {name: value for name, value in settings.items() if value is not None}
    if save is None and (background or settings):
        raise ConfigError("--tokens, --background and training settings only work with --save. Add --save NAME.")
    if save is not None and against:
        raise ConfigError(
            "--against and --save exclude each other. Compare first, then run `compose` again with --save."
        )
    from softprompt.composition.sentence import parse_prompt

    user_library = library()
    find = cache(user_library.open)
    opened_entry = find(opened) if opened else None
    sentence = parse_prompt(template, find, opened_entry)
    model = resolve_model(model) if model else _find_model(sentence)
    if save is not None:
        if not sentence.words:
            raise PromptError(
                "the template contains no soft prompt such as [name]. To train a plain text, use `train`."
            )
        _save(
            sentence,
            user_library.check_new_name(save),
            config_for(model_kind(model), settings),
            model,
            device,
            background,
            as_json,
            quiet,
        )
        return
    encoder = load_text_encoder(model, device, "a composition")
    from softprompt.composition.composer import compose, encode_compositions, score_compositions

    compositions = compose(encoder, [template], find, opened_entry)
    embeddings = encode_compositions(encoder, compositions)
    (score,) = score_compositions(encoder, compositions, embeddings)
    similarities = [
        (text, float((embeddings[0] @ text_embedding).clamp(-1, 1)))
        for text, text_embedding in zip(against, encoder.encode(against), strict=True)
    ]
    if as_json:
        print_json(
            {
                "model": encoder.name,
                "room": encoder.max_prompt_tokens,
                "template": template,
                **_json_values(score, similarities),
            }
        )
        return
    print_line("template", template)
    for label, text in _describe_score(sentence, score, encoder.max_prompt_tokens):
        print_line(label, text)
    for text, similarity in similarities:
        print_line("against", f"{format_number(similarity)}  {text}")


def _find_model(sentence: ParsedPrompt) -> str:
    """Return the model of the first soft prompt with a known one. Soft prompts of other models are rejected later."""
    models = [entry.prompt.model for word in sentence.words for entry in word.entries if entry.prompt.model]
    return models[0] if models else MINI


def _save(
    sentence: ParsedPrompt,
    name: str,
    config: TrainConfig,
    model: str,
    device: str,
    background: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    job = job_from_composition(sentence, config=config, model=model, device=device, name=name)
    library().prepare()
    if background:
        submit(job, "", as_json)
    else:
        train_here(job, None, as_json, quiet)


def _describe_score(sentence: ParsedPrompt, score: CompositionScore, max_tokens: int) -> list[tuple[str, str]]:
    """Return the result as (label, text) lines."""
    used = f"{score.tokens} of {max_tokens}"
    if not sentence.words:
        return [("tokens", used), ("fidelity", "the template contains no soft prompt such as [name]")]
    if score.reference_tokens is None:
        return [
            ("written out", UNKNOWN),
            ("tokens", used),
            ("fidelity", f"{UNKNOWN}, because the prompt of a soft prompt is {UNKNOWN}"),
        ]
    lines = [
        ("written out", sentence.display_text),
        ("tokens", f"{used}; {score.reference_tokens} written out, {_describe_savings(score)}"),
    ]
    if score.fidelity is None:
        return [*lines, ("fidelity", f"{UNKNOWN}: the written-out text is too long for the model")]
    floor = "" if score.floor is None else f"; floor {format_number(score.floor)}"
    lines.append(("fidelity", f"{format_number(score.fidelity)}{floor}"))
    return (
        [*lines, ("mix", "approximate: the mean of the vectors. --save NAME trains it")]
        if score.mixed == "near"
        else lines
    )


def _describe_savings(score: CompositionScore) -> str:
    assert score.saved_tokens is not None  # set whenever reference_tokens is
    return f"{score.saved_tokens} saved" if score.saved_tokens >= 0 else f"{-score.saved_tokens} more than that"


def _json_values(score: CompositionScore, similarities: list[tuple[str, float]]) -> dict[str, Any]:
    return {
        "tokens": score.tokens,
        "written_out": [vars(text).copy() for text in score.reference_texts],
        "written_out_tokens": score.reference_tokens,
        "tokens_saved": score.saved_tokens,
        "fidelity": score.fidelity,
        "floor": score.floor,
        "mixed": score.mixed,
        "against": [{"text": text, "similarity": similarity} for text, similarity in similarities],
    }
