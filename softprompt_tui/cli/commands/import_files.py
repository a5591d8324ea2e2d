"""`softprompt-tui import` and `assign`: soft prompts from the files of other programs, and the model that one belongs to."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from softprompt.config import Long
from softprompt.errors import ConfigError
from softprompt_tui.cli.common import (
    BAD_INPUT,
    complete_entry,
    complete_model,
    device_option,
    json_option,
    library,
    load,
    narrate,
    print_json,
    print_table,
)
from softprompt_tui.cli.options import DEFAULT, choice, prepared
from softprompt_tui.cli.report import entry_json, line, print_entry
from softprompt_tui.cli.streams import MAX_INPUT_LENGTH, read_text
from softprompt_tui.rendering.provenance import UNKNOWN, told_of_origin

if TYPE_CHECKING:
    from softprompt.encoders.clip.text_encoder import TextEncoder
    from softprompt.formats.importer import Imported
    from softprompt.prompts.soft_prompt import SoftPrompt

IN_FULL = 4  # soft prompts that are shown line by line; more make a table
NAMED = 3  # candidates that are named
SAID = 400  # characters of what a file said
STATES = {
    "added": "saved",
    "present": "in the library already; nothing was added",
    "trashed": "in the trash, and left there",
}


@click.command("import")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.option("--model", default=None, metavar="NAME", shell_complete=complete_model,
              help="The text encoder that they belong to, where it is known; `assign` says so later.")  # fmt: skip
@device_option
@click.option(
    "--name",
    default="",
    metavar="NAME",
    help="What to call it; several are numbered. Unless given, what the file says.",
)
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="Give it this tag; may be given several times.")
@click.option("--keep-going", is_flag=True, help="Save the files that can be read though others are refused (exit code 2 all the same).")  # fmt: skip
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
    """Take soft prompts from FILES into the library: embeddings of AUTOMATIC1111 (.pt, .safetensors, .png card), diffusers, ComfyUI, kohya
    and SDXL, KoboldAI's zips, PEFT folders, CoOp's checkpoints, .npy, and what softprompt-tui exported.

    Files are known by what is in them, not by their names, and nothing in them is ever run. They are all read and checked first: where one is
    refused, none is saved. The same file is never added twice. What a file does not say stays unknown, mostly the hard prompt and the model.

    \b
    Examples:
      softprompt-tui import my-style.pt
      softprompt-tui import *.safetensors --model ViT-L-14-quickgelu/openai --tag sd15
      softprompt-tui import card.png --name "red landscape" --json
    """
    from softprompt.formats.importer import import_files

    encoder = load(model, device) if model else None
    batch = import_files(library(), files, encoder, name=name, tags=tags, keep_going=keep_going)
    for error in batch.refused:
        narrate(f"softprompt-tui: {error}")
    if as_json and (batch.imported or not batch.refused):
        print_json([_values(one) for one in batch.imported])
    elif batch.imported:
        _print(batch.imported)
    if batch.refused:
        if len(files) > 1 and not keep_going:
            narrate(f"nothing was saved: {len(batch.refused)} of {len(files)} refused; --keep-going saves the others")
        raise SystemExit(BAD_INPUT)


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=complete_entry)
@click.option(
    "--model", default="", metavar="NAME", shell_complete=complete_model, help="The text encoder that they belong to."
)
@click.option(
    "--prompt",
    metavar="TEXT",
    help="The hard prompt that they stand for, so that `port` and `harden` can be used; - reads standard input.",
)
@click.option("--long", type=choice(Long), default=DEFAULT.long, show_default=True,
              help="A --prompt longer than a model's context: refuse it, take the mean of its chunks, or cut it.")  # fmt: skip
@click.option(
    "--again",
    is_flag=True,
    help="Also those that were given another before, by mistake; not those that were trained here.",
)
@device_option
@json_option
def assign(
    names: tuple[str, ...], model: str, prompt: str | None, long: Long, again: bool, device: str, as_json: bool
) -> None:
    """Say which text encoder the soft prompts NAMES belong to, or which hard prompt they stand for, where that is unknown.

    With --model they can be read out and composed. The width must match; nothing can check that they were made for this
    model and not for another of the same width. With --prompt they can be trained for other models, and their similarity
    is measured where the model is known. A soft prompt that is refused is reported and the others are assigned; the exit
    code is then 2. --json prints a list.

    \b
    Examples:
      softprompt-tui assign my-style my-other-style --model ViT-L-14-quickgelu/openai
      softprompt-tui assign my-style --prompt "oil painting with thick strokes, muted colours"
      softprompt-tui assign my-style --model ViT-L-14/laion2b_s32b_b82k --again
      softprompt-tui models
    """
    from softprompt.errors import DeviceError, HomeError, ModelRefused, ModelUnavailable, SoftPromptError, UnknownModel
    from softprompt.formats.importer import assigned, check_assignable, check_hard_prompt

    if not model and prompt is None:
        raise ConfigError("nothing is assigned: give --model NAME, --prompt TEXT, or both")
    if prompt is not None:
        prompt = prepared(read_text("prompt", MAX_INPUT_LENGTH) if prompt == "-" else prompt, plain=False)
        check_hard_prompt(prompt)
    here, done = library(), []
    encoders: dict[str, TextEncoder] = {}
    for name in names:
        try:
            known = here.open(name).prompt
            # before a model is loaded for nothing
            is_new = bool(model) and (prompt is None or model != known.model)
            check_assignable(known, model=is_new, hard_prompt=prompt is not None, again=again)
            of_model = model or (known.model if known.model_fingerprint else "")
            if of_model and of_model not in encoders:
                encoders[of_model] = load(of_model, device)
            encoder = encoders.get(of_model)
            if encoder and not model:
                encoder.check_belongs(known)
            entry = here.assign(
                name, partial(assigned, encoder=encoder, hard_prompt=prompt or "", long=long, again=again)
            )
        except (
            HomeError,
            UnknownModel,
            ModelRefused,
            ModelUnavailable,
            DeviceError,
        ):  # nothing that another one would be spared
            raise
        except SoftPromptError as error:
            narrate(f"softprompt-tui: {error}")
            continue
        done.append(entry)
        if not as_json:
            if len(done) > 1:
                click.echo()
            print_entry(entry, here.path(entry.id, entry.revision))
    if as_json and done:
        print_json([entry_json(entry, here.path(entry.id, entry.revision)) for entry in done])
    if len(done) < len(names):
        raise SystemExit(BAD_INPUT)


def _print(imported: list[Imported]) -> None:
    for one in imported:
        for note in one.notes:
            narrate(f"note: {one.entry.prompt.name}: {note}")
    if len(imported) > IN_FULL:
        rows = [(one.entry.prompt.name, str(one.entry.prompt.tokens), str(one.entry.prompt.vectors.shape[1]),
                 one.entry.prompt.model or UNKNOWN, STATES[one.state].partition(";")[0], one.path) for one in imported]  # fmt: skip
        print_table(("name", "tokens", "width", "model", "", "file"), rows, right=(1, 2), stretch=5)
        return
    for i, one in enumerate(imported):
        if i:
            click.echo()
        _print_one(one)


def _print_one(one: Imported) -> None:
    prompt = one.entry.prompt
    line("name", prompt.name)
    line(
        "soft tokens", f"{prompt.tokens} of width {prompt.vectors.shape[1]}, on {prompt.model or f'an {UNKNOWN} model'}"
    )
    if "format" not in prompt.source:
        line("format", one.format)
    for label, said in told_of_origin(prompt):
        line(label, said if len(said) <= SAID else f"{said[:SAID]}…")
    if prompt.readout:
        line("readout", prompt.readout_text)
    if unknown := _unknown(prompt):
        line("unknown", ", ".join(unknown))
    quoted = f"'{prompt.name}'" if " " in prompt.name else prompt.name
    if not prompt.model:
        names, words = _candidates(prompt.vectors.shape[1])
        line("candidates", words)
        if names:
            line("to assign", f"softprompt-tui assign {quoted} --model {names[0]}")
    if not prompt.hard_prompt:
        line("its meaning", f"softprompt-tui assign {quoted} --prompt TEXT")
    line(STATES[one.state].partition(";")[0] if one.state == "added" else "state", _where(one))


def _where(one: Imported) -> str:
    if one.state == "trashed":
        return f"{STATES[one.state]}: `softprompt-tui restore {one.entry.id}` brings it back"
    if one.state == "present":
        return f"{STATES[one.state]} (id {one.entry.id})"
    return f"{library().path(one.entry.id, one.entry.revision)}  (id {one.entry.id})"


def _unknown(prompt: SoftPrompt) -> list[str]:
    known = {"hard prompt": prompt.hard_prompt, "model": prompt.model, "similarity": prompt.similarity is not None}
    return [what for what, value in known.items() if not value]


def _candidates(width: int) -> tuple[list[str], str]:
    """(names of models of this width, a line about them)."""
    from softprompt.encoders.catalog import is_kept
    from softprompt.formats.importer import candidates
    from softprompt.text_states import ENCODERS

    names = candidates(width)
    if not names:
        none = "no model is that wide: it can be kept and exported, but not used here"
        return names, none if is_kept() else "`softprompt-tui models` lists the models with their widths"
    usual = ENCODERS.get(width)
    first = f"{names[0]} ({usual.used_by})" if usual and names[0] == usual.model else names[0]
    more = f"; {len(names) - NAMED} more: `softprompt-tui models`" if len(names) > NAMED else ""
    return names, ", ".join([first, *names[1:NAMED]]) + more


def _values(one: Imported) -> dict[str, Any]:
    from softprompt.formats.importer import candidates

    prompt = one.entry.prompt
    path = library().path(one.entry.id, one.entry.revision)
    width = prompt.vectors.shape[1]
    known = [] if prompt.model else candidates(width)
    return {
        "file": one.path,
        "format": one.format,
        "state": one.state,
        "notes": list(one.notes),
        "width": width,
        "unknown": _unknown(prompt),
        "candidates": known,
        **entry_json(one.entry, path),
    }
