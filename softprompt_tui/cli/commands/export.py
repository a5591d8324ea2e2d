"""`softprompt-tui export`."""

from __future__ import annotations

from pathlib import Path

import click

from softprompt.formats.writers.programs import PROGRAMS
from softprompt_tui.cli.arguments import check_working_folder
from softprompt_tui.cli.common import complete_entry, entry_argument, json_option, library, narrate, print_json
from softprompt_tui.cli.report import print_line


@click.command()
@entry_argument
@click.option(
    "--to",
    type=click.Choice(list(PROGRAMS)),
    default="safetensors",
    show_default=True,
    metavar="FORMAT",
    help=f"Format to write: {', '.join(PROGRAMS)}.",
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
@click.option("--force", is_flag=True, help="Replace an existing file.")
@json_option
def export(name: str, to: str, other: str, out: Path | None, token: str, force: bool, as_json: bool) -> None:
    """Write NAME, a name or an id, as a file for another program, and show what to type there.

    ComfyUI, AUTOMATIC1111, Forge, InvokeAI, kohya and diffusers all load `safetensors`. `a1111-png` is a picture with
    the soft prompt inside. kobold, peft and numpy exchange plain vectors. An image program can only use a soft
    prompt that was trained on its own text encoder: ViT-L-14-quickgelu/openai for Stable Diffusion 1.x.

    \b
    Examples:
      softprompt-tui export landscape --to comfyui --out ~/ComfyUI/models/embeddings
      softprompt-tui export landscape --to a1111-png
      softprompt-tui export landscape --to diffusers --token "<lake>"
      softprompt-tui export landscape-l --to a1111 --sdxl landscape-g
    """
    if out is None:
        check_working_folder("an export without --out")
    user_library = library()
    prompt = user_library.open(name).prompt
    pair = user_library.open(other).prompt if other else None
    from softprompt.formats.writers.exporter import export as write

    exported = write(prompt, to, out, other=pair, token=token, force=force)
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
    for text in exported.line.split("\n"):
        print_line("use", text)
    if exported.word:
        print_line("in a prompt", f"a photo of {exported.word} at night")
    for note in exported.notes:
        narrate(note if note.startswith("warning: ") else f"note: {note}")
