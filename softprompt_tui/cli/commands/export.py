"""`softprompt-tui export`."""

from __future__ import annotations

from pathlib import Path

import click

from softprompt.formats.writers.programs import PROGRAMS
from softprompt_tui.cli.arguments import check_working_folder
from softprompt_tui.cli.common import complete_entry, entry_argument, json_option, library, narrate, print_json
from softprompt_tui.cli.report import line


@click.command()
@entry_argument
@click.option("--to", type=click.Choice(list(PROGRAMS)), default="safetensors", show_default=True, metavar="FORMAT", help=f"What to write: {', '.join(PROGRAMS)}.")  # fmt: skip
@click.option("--sdxl", "other", default="", metavar="OTHER", shell_complete=complete_entry, help="The other half of a pair for SDXL: the name of one of width 768, or 1280.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), metavar="PATH", help="A file or a folder to write to; the current folder unless given.")  # fmt: skip
@click.option("--token", default="", metavar="TEXT", help="The word for diffusers; <name> unless given.")
@click.option("--force", is_flag=True, help="Replace what is there.")
@json_option
def export(name: str, to: str, other: str, out: Path | None, token: str, force: bool, as_json: bool) -> None:
    """Write a soft prompt as a file for another program, and say what to type there; NAME is a name or an id.

    `safetensors` loads as it is in ComfyUI, AUTOMATIC1111, Forge, InvokeAI, kohya and diffusers. `a1111-png` is a picture with the
    soft prompt inside. kobold, peft and numpy exchange vectors. Image programs need the text encoder that they have themselves:
    ViT-L-14-quickgelu/openai for Stable Diffusion 1.x.

    \b
    Examples:
      softprompt-tui export landscape --to comfyui --out ~/ComfyUI/models/embeddings
      softprompt-tui export landscape --to a1111-png
      softprompt-tui export landscape --to diffusers --token "<lake>"
      softprompt-tui export landscape-l --to a1111 --sdxl landscape-g
    """
    if out is None:
        check_working_folder("an export without --out")
    here = library()
    prompt = here.open(name).prompt
    pair = here.open(other).prompt if other else None
    from softprompt.formats.writers.exporter import export as write

    done = write(prompt, to, out, other=pair, token=token, force=force)
    if as_json:
        print_json(
            {
                "format": to,
                "paths": list(map(str, done.paths)),
                "line": done.line,
                "word": done.word,
                "notes": done.notes,
            }
        )
        return
    for path in done.paths:
        line("written", str(path))
    for text in done.line.split("\n"):
        line("use", text)
    if done.word:
        line("in a prompt", f"a photo of {done.word} at night")
    for note in done.notes:
        narrate(note if note.startswith("warning: ") else f"note: {note}")
