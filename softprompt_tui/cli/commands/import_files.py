"""`softprompt-tui import` and `assign`: read other programs' files; set the model and prompt of an imported entry."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from softprompt.config import LongPromptPolicy
from softprompt.errors import ConfigError
from softprompt_tui.cli.common import (
    BAD_INPUT,
    complete_entry,
    complete_model,
    device_option,
    json_option,
    library,
    load_text_encoder,
    narrate,
    print_json,
    print_table,
)
from softprompt_tui.cli.options import DEFAULT, choice, prepare_prompt_text
from softprompt_tui.cli.report import entry_json, print_entry, print_line
from softprompt_tui.cli.streams import MAX_INPUT_BYTES, read_text
from softprompt_tui.rendering.provenance import UNKNOWN, describe_origin

if TYPE_CHECKING:
    from softprompt.encoders.clip.text_encoder import TextEncoder
    from softprompt.formats.importer import ImportResult
    from softprompt.prompts.soft_prompt import SoftPrompt

MAX_IN_FULL = 4  # soft prompts printed one after another; more become a table
MAX_CANDIDATES = 3  # models named as possible owners
MAX_TEXT_LENGTH = 400  # characters of a text from the file
STATES = {
    "added": "saved",
    "present": "already in the library; nothing was added",
    "trashed": "in the trash and stays there",
}


@click.command("import")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.option(
    "--model",
    default=None,
    metavar="NAME",
    shell_complete=complete_model,
    help="The text encoder that they were trained for, if you know it. `assign` can set it later.",
)
@device_option
@click.option(
    "--name",
    default="",
    metavar="NAME",
    help="Name in the library; several soft prompts get numbers. By default, the name in the file.",
)
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="Tag the imported soft prompts. Repeatable.")
@click.option(
    "--keep-going",
    is_flag=True,
    help="Save the readable files even if others are rejected. The exit code is still 2.",
)
@json_option
def import_(
    files: tuple[Path, ...],
    model: str | None,
    device: str,
    name: str,
    tags: tuple[str, ...],
    keep_going: bool,
    as_json: bool,
) -> None:
    """Import soft prompts from FILES: embeddings for AUTOMATIC1111 (.pt, .safetensors, .png cards), diffusers, ComfyUI,
    kohya and SDXL; KoboldAI zips; PEFT folders; CoOp checkpoints; .npy files; and softprompt-tui exports.

    A file's content determines its format, not its name, and no code in a file is ever run. All files are checked
    first; if one is rejected, none is saved. The same file is never added twice. Anything a file does not
    record, usually the prompt and the model, stays unknown.

    \b
    Examples:
      softprompt-tui import my-style.pt
      softprompt-tui import *.safetensors --model ViT-L-14-quickgelu/openai --tag sd15
      softprompt-tui import card.png --name "red landscape" --json
    """
    from softprompt.formats.importer import import_files

    encoder = load_text_encoder(model, device, "an import") if model else None
    batch = import_files(library(), files, encoder, name=name, tags=tags, keep_going=keep_going)
    for error in batch.refused:
        narrate(f"softprompt-tui: {error}")
    if as_json and (batch.imported or not batch.refused):
        print_json([_json_values(result) for result in batch.imported])
    elif batch.imported:
        _print_results(batch.imported)
    if batch.refused:
        if len(files) > 1 and not keep_going:
            narrate(
                f"nothing was saved: {len(batch.refused)} of {len(files)} files were rejected. Use --keep-going to "
                "save "
                "the others."
            )
        raise SystemExit(BAD_INPUT)


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=complete_entry)
@click.option(
    "--model",
    default="",
    metavar="NAME",
    shell_complete=complete_model,
    help="The text encoder that they were trained for.",
)
@click.option(
    "--prompt",
    metavar="TEXT",
    help="The prompt that they stand for, which `port` and `harden` need; - reads standard input.",
)
@click.option(
    "--long",
    type=choice(LongPromptPolicy),
    default=DEFAULT.long,
    show_default=True,
    help="If --prompt exceeds the model's context: refuse it, use the mean of its chunks, or cut it.",
)
@click.option(
    "--again",
    is_flag=True,
    help="Replace an earlier, wrong assignment. Never changes soft prompts that were trained here.",
)
@device_option
@json_option
def assign(
    names: tuple[str, ...],
    model: str,
    prompt: str | None,
    long: LongPromptPolicy,
    again: bool,
    device: str,
    as_json: bool,
) -> None:
    """Set the text encoder or the prompt of imported soft prompts, if the file did not contain it.

    With --model they have a readout and can be composed. The width must match, but nothing can tell whether they were
    made for this model or for another of the same width. With --prompt they can be trained for other models, and their
    similarity is measured if the model is known. If one is rejected, the others are still assigned; the exit code is
    then 2. --json prints a list.

    \b
    Examples:
      softprompt-tui assign my-style my-other-style --model ViT-L-14-quickgelu/openai
      softprompt-tui assign my-style --prompt "oil painting with thick strokes"
      softprompt-tui assign my-style --model ViT-L-14/laion2b_s32b_b82k --again
      softprompt-tui models
    """
    from softprompt.errors import DeviceError, HomeError, ModelRefused, ModelUnavailable, SoftPromptError, UnknownModel
    from softprompt.formats.importer import apply_assignment, check_assignable, check_hard_prompt

    if not model and prompt is None:
        raise ConfigError("nothing to assign. Give --model NAME, --prompt TEXT, or both.")
    if prompt is not None:
        prompt = prepare_prompt_text(read_text("prompt", MAX_INPUT_BYTES) if prompt == "-" else prompt, plain=False)
        check_hard_prompt(prompt)
    user_library, assigned = library(), []
    encoders: dict[str, TextEncoder] = {}
    for name in names:
        try:
            soft_prompt = user_library.open(name).prompt
            # loading a model takes seconds, so check this first
            is_new = bool(model) and (prompt is None or model != soft_prompt.model)
            check_assignable(soft_prompt, model=is_new, hard_prompt=prompt is not None, again=again)
            model_name = model or (soft_prompt.model if soft_prompt.model_fingerprint else "")
            if model_name and model_name not in encoders:
                encoders[model_name] = load_text_encoder(model_name, device, "assign")
            encoder = encoders.get(model_name)
            if encoder and not model:
                encoder.check_compatible(soft_prompt)
            entry = user_library.assign(
                name, partial(apply_assignment, encoder=encoder, hard_prompt=prompt or "", long=long, again=again)
            )
        except (
            HomeError,
            UnknownModel,
            ModelRefused,
            ModelUnavailable,
            DeviceError,
        ):  # would fail for all other names too
            raise
        except SoftPromptError as error:
            narrate(f"softprompt-tui: {error}")
            continue
        assigned.append(entry)
        if not as_json:
            if len(assigned) > 1:
                click.echo()
            print_entry(entry, user_library.path(entry.id, entry.revision))
    if as_json and assigned:
        print_json([entry_json(entry, user_library.path(entry.id, entry.revision)) for entry in assigned])
    if len(assigned) < len(names):
        raise SystemExit(BAD_INPUT)


def _print_results(results: list[ImportResult]) -> None:
    for result in results:
        for note in result.notes:
            narrate(f"note: {result.entry.prompt.name}: {note}")
    if len(results) > MAX_IN_FULL:
        rows = [
            (
                result.entry.prompt.name,
                str(result.entry.prompt.tokens),
                str(result.entry.prompt.vectors.shape[1]),
                result.entry.prompt.model or UNKNOWN,
                STATES[result.state].partition(";")[0],
                result.path,
            )
            for result in results
        ]
        print_table(("name", "tokens", "width", "model", "", "file"), rows, right=(1, 2), stretch=5)
        return
    for i, result in enumerate(results):
        if i:
            click.echo()
        _print_result(result)


def _print_result(result: ImportResult) -> None:
    prompt = result.entry.prompt
    print_line("name", prompt.name)
    print_line(
        "soft tokens", f"{prompt.tokens} of width {prompt.vectors.shape[1]}, on {prompt.model or f'an {UNKNOWN} model'}"
    )
    if "format" not in prompt.source:
        print_line("format", result.format)
    for label, text in describe_origin(prompt):
        print_line(label, text if len(text) <= MAX_TEXT_LENGTH else f"{text[:MAX_TEXT_LENGTH]}…")
    if prompt.readout:
        print_line("readout", prompt.readout_text)
    if unknown := _unknown(prompt):
        print_line("unknown", ", ".join(unknown))
    quoted = f"'{prompt.name}'" if " " in prompt.name else prompt.name
    if not prompt.model:
        names, description = _describe_candidates(prompt.vectors.shape[1])
        print_line("candidates", description)
        if names:
            print_line("set model", f"softprompt-tui assign {quoted} --model {names[0]}")
    if not prompt.hard_prompt:
        print_line("set prompt", f"softprompt-tui assign {quoted} --prompt TEXT")
    print_line(
        STATES[result.state].partition(";")[0] if result.state == "added" else "state", _describe_location(result)
    )


def _describe_location(result: ImportResult) -> str:
    if result.state == "trashed":
        return f"{STATES[result.state]}; run `softprompt-tui restore {result.entry.id}` to restore it"
    if result.state == "present":
        return f"{STATES[result.state]} (id {result.entry.id})"
    return f"{library().path(result.entry.id, result.entry.revision)}  (id {result.entry.id})"


def _unknown(prompt: SoftPrompt) -> list[str]:
    facts = {"hard prompt": prompt.hard_prompt, "model": prompt.model, "similarity": prompt.similarity is not None}
    return [label for label, value in facts.items() if not value]


def _describe_candidates(width: int) -> tuple[list[str], str]:
    """Return the names of all models of this width, and a line that describes them."""
    from softprompt.encoders.catalog import is_cached
    from softprompt.formats.importer import find_candidate_models
    from softprompt.text_states import KNOWN_ENCODERS

    names = find_candidate_models(width)
    if not names:
        none = "no known model has this width. You can keep and export it, but not use it here"
        return names, none if is_cached() else "`softprompt-tui models` lists the models with their widths"
    known_encoder = KNOWN_ENCODERS.get(width)
    first = f"{names[0]} ({known_encoder.used_by})" if known_encoder and names[0] == known_encoder.model else names[0]
    more = f"; {len(names) - MAX_CANDIDATES} more: `softprompt-tui models`" if len(names) > MAX_CANDIDATES else ""
    return names, ", ".join([first, *names[1:MAX_CANDIDATES]]) + more


def _json_values(result: ImportResult) -> dict[str, Any]:
    from softprompt.formats.importer import find_candidate_models

    prompt = result.entry.prompt
    path = library().path(result.entry.id, result.entry.revision)
    width = prompt.vectors.shape[1]
    candidates = [] if prompt.model else find_candidate_models(width)
    return {
        "file": result.path,
        "format": result.format,
        "state": result.state,
        "notes": list(result.notes),
        "width": width,
        "unknown": _unknown(prompt),
        "candidates": candidates,
        **entry_json(result.entry, path),
    }
