"""`softprompt-tui models` and `models pull`."""

from __future__ import annotations

from importlib.util import find_spec

import click

from softprompt.encoders.catalog import MINI, ModelInfo, is_cached, list_models, resolve
from softprompt_tui.cli import streams
from softprompt_tui.cli.common import complete_model, download_bar, json_option, narrate, print_json, print_table
from softprompt_tui.cli.report import print_line


class QueryGroup(click.Group):
    """A group that treats words as a query for `find` unless the first one is a subcommand."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        is_subcommand = bool(args) and args[0] in (*self.commands, *self.get_help_option_names(ctx))
        # during shell completion, the words may be the start of a subcommand
        return super().parse_args(ctx, args if is_subcommand or ctx.resilient_parsing else ["find", *args])


@click.group(cls=QueryGroup, subcommand_metavar="[QUERY... | pull NAME]")
def models() -> None:
    """List the built-in model and open_clip's models. QUERY narrows the list: vitl14 finds ViT-L-14.

    "not supported" marks models that cannot be used. --json prints one JSON document. `pull NAME` downloads a model.

    \b
    Examples:
      softprompt-tui models
      softprompt-tui models vitl14 openai
      softprompt-tui models pull ViT-B-32-quickgelu/openai
    """


@models.command("find", hidden=True)
@click.argument("query", nargs=-1)
@json_option
def find(query: tuple[str, ...], as_json: bool) -> None:
    """List the models that match every word of QUERY, with the size of their text encoder."""
    if not is_cached():
        narrate("reading open_clip's list of models (once, a few seconds) …")
    matches = find_models(list_models(), query)
    if as_json:
        print_json([info.as_dict() for info in matches])
    elif not matches:
        narrate(f"no model matches {' '.join(query)!r}. `softprompt-tui models` lists all.")
    else:
        headings = ("model", "width", "layers", "context", "parameters", "")
        print_table(headings, [_row(info) for info in matches], right=(1, 2, 3, 4))


def _row(info: ModelInfo) -> tuple[str, ...]:
    if info.refused:
        return (info.name, "-", "-", "-", "-", "not supported")
    note = "built in" if info.name == MINI else "on disk" if info.weights_path else ""
    if info.tokenizer and find_spec("transformers") is None:
        note = f"{note} needs transformers".strip()
    return (info.name, str(info.width), str(info.layers), str(info.context), f"{info.parameters / 1e6:.0f} M", note)


def find_models(models: tuple[ModelInfo, ...], query: tuple[str, ...]) -> list[ModelInfo]:
    """Return the models whose name contains every word, ignoring case and punctuation.

    If there are none, return those whose name contains the letters of every word in order, best match first.
    """
    exact = [info for info in models if all(_letters(word) in _letters(info.name) for word in query)]
    if exact:
        return exact
    from textual.fuzzy import Matcher

    matchers = [Matcher(word) for word in query]
    scored = [(min(matcher.match(info.name) for matcher in matchers), info) for info in models]
    return [info for score, info in sorted(scored, key=lambda pair: -pair[0]) if score > 0]


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text.lower()))


@models.command()
@click.argument("name", shell_complete=complete_model)
def pull(name: str) -> None:
    """Download the weights of the model NAME from the Hugging Face hub. Continues an interrupted download.

    \b
    Example:
      softprompt-tui models pull ViT-B-32-quickgelu/openai
    """
    if name.lower() == MINI:
        narrate("mini is part of the package; there is nothing to download")
        return
    from softprompt.encoders.loading import pull as fetch

    with streams.native_errors_logged(), download_bar(name) as on_progress:
        path = fetch(name, on_progress)
    print_line("model", resolve(name).name)
    print_line("on disk", str(path))
