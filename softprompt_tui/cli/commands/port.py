"""`softprompt-tui port`."""

from __future__ import annotations

from dataclasses import replace

import click

from softprompt.errors import PromptError
from softprompt.jobs.job import TrainJob
from softprompt.text_states import ImageProgram
from softprompt_tui.cli.commands.runs import resolved, submit
from softprompt_tui.cli.commands.train import train_here
from softprompt_tui.cli.common import complete_model, device_option, entry_argument, json_option, library
from softprompt_tui.cli.options import choice
from softprompt_tui.services.job_form import settings_of


@click.command()
@entry_argument
@click.option(
    "--model",
    required=True,
    metavar="MODEL",
    shell_complete=complete_model,
    help="The text encoder to train for: mini, local-dir:FOLDER, or a MODEL/TAG of open_clip.",
)
@click.option("--name", "new", metavar="NAME", help="Name in the library; the old one with a number unless given.")
@click.option(
    "--family",
    type=choice(ImageProgram),
    help="Whose hidden states to look at, where it was trained to be near those of another.",
)
@device_option
@click.option("--background", "-b", is_flag=True, help="Hand it to the worker; prints the run's id.")
@json_option
@click.option("--quiet", "-q", is_flag=True, help="No progress bar.")
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
    """Train NAME again for another model, from its hard prompt and with its settings: vectors mean nothing to a model they were not
    trained on.

    \b
    Examples:
      softprompt-tui port landscape --model ViT-L-14-quickgelu/openai
      softprompt-tui port landscape --model ViT-B-32-quickgelu/openai --name landscape-b --background
    """  # fmt: skip
    here = library()
    entry = here.open(name)
    made = entry.prompt
    if not made.reference_texts:
        raise PromptError(
            f"{made.name} cannot be trained for another model: what it means is not known, since the file that it came from does "
            f"not say. `softprompt-tui assign '{made.name}' --prompt TEXT` says it"
        )
    from softprompt.composition.sentence import ancestor

    config = settings_of(made)
    if config.init == "soft":  # what it began from is not kept, and would be of the other model
        config = replace(config, init="noise")
    if family is not None:
        config = replace(config, family=family)
    job = TrainJob(
        made.hard_prompt,
        config,
        resolved(model),
        device,
        name=here.free_name(new) if new is not None else here.numbered(made.name),
        meanings=made.meanings,
        ancestry=(ancestor("ported", entry),),
    )
    here.prepare()
    if background:
        submit(job, "", as_json)
    else:
        train_here(job, None, as_json, quiet)
