"""The command line: every job as a command. Data goes to stdout, narration to stderr; exit 0 done, 1 failed, 2 bad input, 130 interrupted."""

from __future__ import annotations

from importlib import import_module

import click
from click.shell_completion import CompletionItem

from softprompt.system.threads import limit_openmp_spin
from softprompt.worker.log import PROGRAM as PROGRAM_LOG
from softprompt.worker.log import Log, collect
from softprompt_tui import PROGRAM
from softprompt_tui.cli.arguments import check_arguments
from softprompt_tui.cli.common import BAD_INPUT, Narrator, fail, run

COMMANDS = {
    "assign": (
        "import_files:assign",
        "Say which model imported soft prompts belong to, and which hard prompt they stand for.",
    ),
    "attach": ("runs:attach", "Show a training in the background until it ends."),
    "batch": ("batch:batch", "Train every prompt of FILE, many together."),
    "bench": ("bench:bench", "Measure speed and quality on this machine, beside PEZ and textual inversion."),
    "compare": ("compare:compare", "Show how alike texts are to the encoder."),
    "completion": ("completion:completion", "Print a completion script for a shell."),
    "compose": ("compose:compose", "Use soft prompts as words of a prompt."),
    "diff": ("diff:diff", "Show what tells two soft prompts apart."),
    "duplicate": ("edit:duplicate", "Save a soft prompt a second time, under another name."),
    "export": ("export:export", "Write a soft prompt as a file for another program."),
    "harden": ("harden:harden", "Find real words that carry its meaning, to paste anywhere."),
    "import": ("import_files:import_", "Take soft prompts from the files of other programs."),
    "library": ("maintenance:library", "Check, back up and bring back the whole library."),
    "list": ("library:list_", "List and search the saved soft prompts."),
    "models": ("models:models", "List the models, or fetch one."),
    "note": ("edit:note", "Write a note to a soft prompt."),
    "port": ("port:port", "Train a saved soft prompt again for another model."),
    "purge": ("trash:purge", "Remove what is in the trash for good."),
    "readout": ("readout:readout", "Show the words nearest to its soft tokens."),
    "rename": ("edit:rename", "Give a soft prompt another name."),
    "restore": ("trash:restore", "Bring soft prompts back from the trash."),
    "rm": ("trash:rm", "Move soft prompts to the trash."),
    "runs": ("runs:runs", "List the trainings in the background."),
    "show": ("library:show", "Show a saved soft prompt and its loss curve."),
    "stop": ("runs:stop", "End a training in the background; its best so far is saved."),
    "sweep": ("sweep:sweep", "Train PROMPT with 1 to 16 soft tokens at once, and choose."),
    "tag": ("edit:tag", "Add tags to a soft prompt, or remove them."),
    "train": ("train:train", "Train a soft prompt for PROMPT and save it."),
    "worker": ("worker:worker", "See to the process that trains in the background."),
}  # where each command is defined, and its line in the list of commands


class Commands(click.Group):
    """The commands. Each module is imported when its command is asked for: all of them take .2 s."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name in COMMANDS and cmd_name not in self.commands:
            module, name = COMMANDS[cmd_name][0].split(":")
            command: click.Command = getattr(import_module(f"{__name__}.commands.{module}"), name)
            check_arguments(command)
            self.add_command(command)
        return self.commands.get(cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in self.list_commands(ctx)])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        names = [name for name in self.list_commands(ctx) if name.startswith(incomplete)]
        options = click.Command.shell_complete(self, ctx, incomplete)
        return [CompletionItem(name, help=COMMANDS[name][1]) for name in names] + options


@click.group(
    cls=Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(package_name="softprompt-tui", prog_name=PROGRAM)
@click.pass_context
def main(context: click.Context) -> None:
    """Turn a long prompt into a few trained soft tokens that a CLIP text encoder understands as the same thing.

    Without a command it opens the interface, which needs a terminal. Every job is a command too.

    \b
    A first try, on the built-in model, without a network:
      softprompt-tui train "serene landscape at sunrise with a lake" -k 3
      softprompt-tui list
      softprompt-tui show serene-landscape-sunrise

    Exit codes: 0 done, 1 failed, 2 bad input, 130 interrupted.

    Soft prompts lie in the platform's data folder; SOFTPROMPT_HOME moves them. Models' weights lie in the Hugging Face
    cache (HF_HOME).
    """
    collect(Log(PROGRAM_LOG), *([Narrator()] if context.invoked_subcommand else []))
    if context.invoked_subcommand is None:
        from softprompt_tui.terminal import cannot_open, open_interface

        if why := cannot_open():
            fail(why, BAD_INPUT)
        raise SystemExit(open_interface())


def entry() -> None:
    """What the installed command calls."""
    limit_openmp_spin()
    run(main)
