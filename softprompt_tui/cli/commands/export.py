"""`softprompt-tui export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from softprompt.formats.writers.programs import ALL_PROGRAMS, LANGUAGE_MODEL_PROGRAMS
from softprompt_tui.cli import streams
from softprompt_tui.cli.arguments import check_working_folder
from softprompt_tui.cli.common import (
    complete_entry,
    complete_model,
    download_bar,
    entry_argument,
    json_option,
    library,
    narrate,
    print_json,
)
from softprompt_tui.cli.report import print_line
from softprompt_tui.rendering.sanitize import sanitize

if TYPE_CHECKING:
    from softprompt.encoders.causal_lm.model import CausalLM


@click.command()
@entry_argument
@click.option(
    "--to",
    type=click.Choice(list(ALL_PROGRAMS)),
    default="safetensors",
    show_default=True,
    metavar="FORMAT",
    help=f"Format to write: {', '.join(ALL_PROGRAMS)}. For language models: {', '.join(LANGUAGE_MODEL_PROGRAMS)}.",
)
@click.option(
    "--sdxl",
    "other",
    default="",
    metavar="OTHER",
    shell_complete=complete_entry,
    help="The other half of an SDXL pair: an entry of width 768 or 1280.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="The file or folder to write to. By default, the current folder.",
)
@click.option("--token", default="", metavar="TEXT", help="The word to type in diffusers. By default, <name>.")
@click.option(
    "--model",
    default="",
    metavar="NAME",
    shell_complete=complete_model,
    help="The language model, if it has another name or folder than in training.",
)
@click.option(
    "--question",
    default="",
    metavar="TEXT",
    help="What to ask. sglang needs it, and with it vllm writes a request for the completions route.",
)
@click.option(
    "--dtype",
    default="",
    metavar="TYPE",
    help="For vllm, the precision of the server's model: bfloat16, the default, float16 or float32.",
)
@click.option("--force", is_flag=True, help="Replace an existing file.")
@json_option
def export(
    name: str,
    to: str,
    other: str,
    out: Path | None,
    token: str,
    model: str,
    question: str,
    dtype: str,
    force: bool,
    as_json: bool,
) -> None:
    """Write NAME, a name or an id, as a file for another program, and show what to type there.

    ComfyUI, AUTOMATIC1111, Forge, InvokeAI, kohya and diffusers all load `safetensors`. `a1111-png` is a picture with
    the soft prompt inside. kobold, peft and numpy exchange plain vectors. An image program can only use a soft
    prompt that was trained on its own text encoder: ViT-L-14-quickgelu/openai for Stable Diffusion 1.x.

    A language model's soft prompt goes to transformers, PEFT (as a prompt in front of all text, or with peft-tokens as
    new tokens), vLLM and SGLang, with code that uses it. For these, the model is loaded.

    \b
    Examples:
      softprompt-tui export landscape --to comfyui --out ~/ComfyUI/models/embeddings
      softprompt-tui export landscape --to a1111-png
      softprompt-tui export landscape --to diffusers --token "<lake>"
      softprompt-tui export landscape-l --to a1111 --sdxl landscape-g
      softprompt-tui export pirate --to transformers
      softprompt-tui export pirate --to vllm --question "What is the capital of France?"
    """
    if out is None:
        check_working_folder("an export without --out")
    user_library = library()
    prompt = user_library.open(name).prompt
    pair = user_library.open(other).prompt if other else None
    from softprompt.formats.writers.causal_lm.placement import is_language_model
    from softprompt.formats.writers.exporter import check_options
    from softprompt.formats.writers.exporter import export as write

    check_options(prompt, to, other=pair, question=question, dtype=dtype)
    program = LANGUAGE_MODEL_PROGRAMS.get(to)
    needs_model = program is not None and program.needs_model and is_language_model(prompt)
    if model and not needs_model:
        raise click.UsageError(f"--model is for language models and formats that need one, so not for {to} here")
    encoder = _load_language_model(model or prompt.model) if needs_model else None
    exported = write(
        prompt, to, out, other=pair, token=token, force=force, encoder=encoder, question=question, dtype=dtype
    )
    if as_json:
        print_json(
            {
                "format": to,
                "paths": list(map(str, exported.paths)),
                "line": exported.line,
                "word": exported.word,
                "notes": exported.notes,
            }
        )
        return
    for path in exported.paths:
        print_line("written", str(path))
    if encoder is None:
        for text in exported.line.split("\n"):
            print_line("use", text)
    else:  # code to copy
        click.echo("\n".join(map(sanitize, exported.line.split("\n"))))
    if exported.word:
        print_line("in a prompt", f"a photo of {exported.word} at night")
    for note in exported.notes:
        narrate(note if note.startswith("warning: ") else f"note: {note}")


def _load_language_model(name: str) -> CausalLM:
    """Load a language model in float32, in which its token embeddings are exact."""
    import softprompt

    with streams.native_errors_logged(), download_bar(name) as on_progress:
        return softprompt.load_causal_lm(name, "cpu", on_progress=on_progress)
