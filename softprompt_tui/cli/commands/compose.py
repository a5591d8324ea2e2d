"""`softprompt-tui compose`."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import click

from softprompt.config import TrainConfig
from softprompt.encoders.catalog import MINI
from softprompt.errors import ConfigError, PromptError
from softprompt.jobs.job import job_from_composition
from softprompt.text_states import ImageProgram
from softprompt_tui.cli.commands.runs import resolved, submit
from softprompt_tui.cli.commands.train import train_here
from softprompt_tui.cli.common import (
    complete_entry,
    complete_model,
    device_option,
    json_option,
    library,
    load,
    print_json,
)
from softprompt_tui.cli.options import choice
from softprompt_tui.cli.report import line
from softprompt_tui.rendering.provenance import UNKNOWN

if TYPE_CHECKING:
    from softprompt.composition.composer import CompositionScore
    from softprompt.composition.sentence import ParsedPrompt

OBJECTIVES = ("cosine", "mse", "hidden", "mixed")
TOKENS = 4  # of a saved composition: .9996 alone and .997 composed where two long ones stand in it, against .9990 and .995 with 3 (measured)


@click.command()
@click.argument("template")
@click.option(
    "--with",
    "opened",
    metavar="NAME",
    shell_complete=complete_entry,
    help="The soft prompt whose tokens [v1], [v2], … are.",
)
@click.option("--against", multiple=True, metavar="TEXT", help="A text to compare it with; repeatable.")
@click.option("--save", metavar="NAME", help="Train a soft prompt that means the whole composition, and save it.")
@click.option(
    "--tokens", "-k", type=int, metavar="N", help=f"How many soft tokens the saved one has; {TOKENS} unless given."
)
@click.option("--steps", type=int, help="Optimizer steps of the saved one, as in `train`.")
@click.option("--seed", type=int, help="Seed of the saved one, as in `train`.")
@click.option(
    "--objective",
    type=click.Choice(OBJECTIVES),
    help="What the saved one is trained towards, as in `train`; a mix takes cosine only.",
)
@click.option("--family", type=choice(ImageProgram), help="Whose hidden states: hidden, mixed.")
@click.option("--hidden-share", type=float, help="The hidden states' part of mixed.")
@click.option(
    "--model",
    metavar="NAME",
    shell_complete=complete_model,
    help="The text encoder; that of the soft prompts unless given.",
)
@device_option
@click.option(
    "--background", "-b", is_flag=True, help="Let the worker train what --save asks for; prints the run's id."
)
@json_option
@click.option("--quiet", "-q", is_flag=True, help="No progress bar.")
def compose(
    template: str,
    opened: str | None,
    against: tuple[str, ...],
    save: str | None,
    tokens: int | None,
    model: str | None,
    device: str,
    background: bool,
    as_json: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Use soft prompts as words, and show how near TEMPLATE comes to the same sentence with their hard prompts written out.

    [name] stands for a saved soft prompt, [name:2] for its second soft token, [name:1-3] for its first three, [a*.6 + b*.4] for a mix by
    shares, and \\[ for a bracket. An unsaved mix is the mean of the vectors, which is near; --save trains it.

    \b
    Examples:
      softprompt-tui compose "[landscape] mountain view" --against "a red car"
      softprompt-tui compose "[fox] in the style of [stained glass]"
      softprompt-tui compose "[landscape*.6 + night*.4]" --save evening
      softprompt-tui compose "[v1][v2] at night" --with landscape
    """  # fmt: skip
    settings = {name: value for name, value in settings.items() if value is not None}
    if save is None and (tokens is not None or background or settings):
        raise ConfigError(
            "--tokens, --background and settings of a training say how a composition is saved: --save NAME is missing"
        )
    if save is not None and against:
        raise ConfigError(
            "--against compares a composition, and --save trains one: `compose` once without --save, please"
        )
    from softprompt.composition.sentence import read_sentence

    here = library()
    find = cache(here.open)
    open_one = find(opened) if opened else None
    sentence = read_sentence(template, find, open_one)
    model = resolved(model) if model else _model_of(sentence)
    if save is not None:
        if not sentence.words:
            raise PromptError("there is no soft prompt in it: [name] is one; `train` trains a text")
        _save(
            sentence,
            here.free_name(save),
            TrainConfig(tokens=TOKENS if tokens is None else tokens, **settings),
            model,
            device,
            background,
            as_json,
            quiet,
        )
        return
    encoder = load(model, device)
    from softprompt.composition.composer import compose, figures, pooled

    made = compose(encoder, [template], find, open_one)
    ours = pooled(encoder, made)
    (found,) = figures(encoder, made, ours)
    alike = [
        (text, float((ours[0] @ theirs).clamp(-1, 1)))
        for text, theirs in zip(against, encoder.encode(against), strict=True)
    ]
    if as_json:
        print_json(
            {"model": encoder.name, "room": encoder.max_prompt_tokens, "template": template, **_values(found, alike)}
        )
        return
    line("template", template)
    for label, words in _told(sentence, found, encoder.max_prompt_tokens):
        line(label, words)
    for text, likeness in alike:
        line("against", f"{likeness:.4f}  {text}")


def _model_of(sentence: ParsedPrompt) -> str:
    """The model of the first soft prompt in it of which it is known; the others are held against it when they are used."""
    known = [entry.prompt.model for word in sentence.words for entry in word.entries if entry.prompt.model]
    return known[0] if known else MINI


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


def _told(sentence: ParsedPrompt, found: CompositionScore, room: int) -> list[tuple[str, str]]:
    """(label, words) of what there is to say."""
    used = f"{found.tokens} of {room}"
    if not sentence.words:
        return [("tokens", used), ("fidelity", "there is no soft prompt in it: [name] is one")]
    if found.written_tokens is None:
        return [("written out", UNKNOWN), ("tokens", used), ("fidelity", f"{UNKNOWN}, as a hard prompt is")]
    told = [
        ("written out", sentence.readable),
        ("tokens", f"{used}; {found.written_tokens} written out, {_saved(found)}"),
    ]
    if found.fidelity is None:
        return [*told, ("fidelity", f"{UNKNOWN}: written out, it is too long for the model")]
    floor = "" if found.floor is None else f"; {found.floor:.4f} without the added words"
    told.append(("fidelity", f"{found.fidelity:.4f}{floor}"))
    return [*told, ("mix", "near: the mean of the vectors. --save NAME trains it")] if found.mixed == "near" else told


def _saved(found: CompositionScore) -> str:
    assert found.saved is not None  # the tokens written out are known
    return f"{found.saved} saved" if found.saved >= 0 else f"{-found.saved} more than that"


def _values(found: CompositionScore, alike: list[tuple[str, float]]) -> dict[str, Any]:
    return {
        "tokens": found.tokens,
        "written_out": [vars(one).copy() for one in found.written_out],
        "written_out_tokens": found.written_tokens,
        "tokens_saved": found.saved,
        "fidelity": found.fidelity,
        "floor": found.floor,
        "mixed": found.mixed,
        "against": [{"text": text, "similarity": likeness} for text, likeness in alike],
    }
