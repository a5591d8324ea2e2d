"""`softprompt-tui port`."""

from __future__ import annotations

from dataclasses import replace

import click

from softprompt.encoders.catalog import model_kind
from softprompt.jobs.job import port_config, port_job
from softprompt.text_states import ImageProgram
from softprompt_tui.cli.commands.runs import resolve_model, submit
from softprompt_tui.cli.commands.train import train_here
from softprompt_tui.cli.common import complete_model, device_option, entry_argument, json_option, library
from softprompt_tui.cli.options import choice


@click.command()
@entry_argument
@click.option(
    "--model",
    required=True,
    metavar="MODEL",
    shell_complete=complete_model,
    help="The text encoder to train for: mini, an open_clip MODEL/TAG, or local-dir:FOLDER.",
)
@click.option("--name", "new", metavar="NAME", help="Name in the library. By default, the old name with a number.")
@click.option(
    "--family",
    type=choice(ImageProgram),
    help="The program whose hidden states to compare, if the objective uses them. By default, the entry's own.",
)
@device_option
@click.option("--background", "-b", is_flag=True, help="Submit it to the worker. Prints the run's id.")
@json_option
@click.option("--quiet", "-q", is_flag=True, help="Do not show progress.")
def port(
    name: str,
    model: str,
    new: str | None,
    family: ImageProgram | None,
    device: str,
    background: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Train NAME again for another model, with the same prompt and settings.

    Vectors only work with the model they were trained for.

    \b
    Examples:
      softprompt-tui port landscape --model ViT-L-14-quickgelu/openai
      softprompt-tui port landscape --model ViT-B-32-quickgelu/openai --name landscape-b --background
    """  # fmt: skip
    user_library = library()
    entry = user_library.open(name)
    model = resolve_model(model)
    config = port_config(entry.prompt, model_kind(model))
    if family is not None:
        config = replace(config, family=family)
    name = user_library.check_new_name(new) if new is not None else user_library.unique_name(entry.prompt.name)
    job = port_job(entry, model, config, name, device)
    user_library.prepare()
    if background:
        submit(job, "", as_json)
    else:
        train_here(job, None, as_json, quiet)
