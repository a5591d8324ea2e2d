"""The command line. Results go to stdout, everything else to stderr.

Exit codes: 0 done, 1 failed, 2 bad input, 130 interrupted.

To add a command, write a module in `commands` and add a line to COMMANDS; CONTRIBUTING.md has an example.
"""

from __future__ import annotations

from importlib import import_module

import click
from click.shell_completion import CompletionItem

from softprompt.errors import word_messages_for
from softprompt.system.threads import limit_openmp_spin
from softprompt.worker.log import PROGRAM as PROGRAM_LOG
from softprompt.worker.log import Log, redirect_logging
from softprompt_tui import PROGRAM
from softprompt_tui.cli.arguments import check_arguments
from softprompt_tui.cli.common import BAD_INPUT, Narrator, fail, run
from softprompt_tui.cli.help import HelpContext, fit_help

COMMANDS = {
    "assign": (
        "import_files:assign",
        "Set the model or the prompt of imported soft prompts.",
    ),
    "attach": ("runs:attach", "Show a background run until it ends."),
    "batch": ("batch:batch", "Train every prompt of FILE, many at once."),
    "bench": ("bench:bench", "Measure speed and quality against PEZ and textual inversion."),
    "compare": ("compare:compare", "Show how similar texts are to the encoder."),
    "completion": ("completion:completion", "Print a completion script for a shell."),
    "compose": ("compose:compose", "Use soft prompts as words of a prompt."),
    "diff": ("diff:diff", "Compare two soft prompts."),
    "docs": ("docs:docs", "Read or search the guides."),
    "doctor": ("doctor:doctor", "Describe this machine for a bug report, or test a device."),
    "duplicate": ("edit:duplicate", "Copy a soft prompt under another name."),
    "export": ("export:export", "Write a soft prompt as a file for another program."),
    "harden": ("harden:harden", "Find real words with its meaning, to paste anywhere."),
    "import": ("import_files:import_", "Import soft prompts from files of other programs."),
    "library": ("maintenance:library", "Check, back up and restore the whole library."),
    "list": ("library:list_", "List and search the saved soft prompts."),
    "models": ("models:models", "List the models, or download one."),
    "note": ("edit:note", "Write a note for a soft prompt."),
    "port": ("port:port", "Train a saved soft prompt again for another model."),
    "purge": ("trash:purge", "Delete soft prompts in the trash for good."),
    "readout": ("readout:readout", "Show the words nearest to its soft tokens."),
    "rename": ("edit:rename", "Rename a soft prompt."),
    "restore": ("trash:restore", "Restore soft prompts from the trash."),
    "rm": ("trash:rm", "Move soft prompts to the trash."),
    "runs": ("runs:runs", "List the background runs."),
    "show": ("library:show", "Show a saved soft prompt and its loss curve."),
    "stop": ("runs:stop", "Stop a background run and save its best result so far."),
    "sweep": ("sweep:sweep", "Train PROMPT with 1 to 16 soft tokens and compare the results."),
    "tag": ("edit:tag", "Add or remove tags of a soft prompt."),
    "train": ("train:train", "Train a soft prompt for PROMPT and save it."),
    "tune": ("tune:tune", "Tune a soft prompt on the examples of FILE and save it."),
    "worker": ("worker:worker", "Control the process that trains in the background."),
}  # name: (module:function, line in the list of commands)


class Commands(click.Group):
    """A group that imports a command's module on first use. Importing all of them takes .2 s."""

    context_class = HelpContext

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name in COMMANDS and cmd_name not in self.commands:
            module, name = COMMANDS[cmd_name][0].split(":")
            command: click.Command = getattr(import_module(f"{__name__}.commands.{module}"), name)
            check_arguments(command)
            fit_help(command)
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
    """Turn a long prompt into a few trained soft tokens that mean the same to a CLIP text encoder.

    Without a command, it opens the interface in the terminal. The commands do the same jobs from scripts.

    \b
    A first try with the built-in model, no network needed:
      softprompt-tui train "serene landscape at sunrise with a lake" -k 3
      softprompt-tui list
      softprompt-tui show serene-landscape-sunrise

    Exit codes: 0 done, 1 failed, 2 bad input, 130 interrupted.

    Soft prompts are saved in the platform's data folder, or in SOFTPROMPT_HOME. Model weights are in the Hugging Face
    cache (HF_HOME).
    """
    redirect_logging(Log(PROGRAM_LOG), *([Narrator()] if context.invoked_subcommand else []))
    if context.invoked_subcommand is None:
        from softprompt_tui.terminal import open_interface, why_cannot_open

        if why := why_cannot_open():
            fail(why, BAD_INPUT)
        raise SystemExit(open_interface())


@word_messages_for("commands")
def entry() -> None:
    """Run the command line; the entry point of the installed program."""
    limit_openmp_spin()
    run(main)
