"""The settings of a training as options of a command, and what they come to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from softprompt.config import AUTO_STOP_AT, Init, Long, ObjectiveName, TrainConfig
from softprompt.errors import ConfigError
from softprompt.text_states import ImageProgram
from softprompt_tui.cli.common import device_option, model_option, narrate

DEFAULT = TrainConfig()
Command = TypeVar("Command", bound=Callable[..., Any])


class TokenCount(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions of click only
    name = "N|auto"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, int) or value == "auto":
            return value
        try:
            return int(str(value))
        except ValueError:
            self.fail(f"{value!r} is neither a whole number nor auto", param, ctx)


def choice(values: Any) -> click.Choice[str]:
    return click.Choice(list(values.__args__))


TOKENS = click.option(
    "--tokens",
    "-k",
    type=TokenCount(),
    metavar="N|auto",
    default=DEFAULT.tokens,
    show_default=True,
    help=f"How many soft tokens. auto tries 1, 2, … up to 16, each a whole training, and keeps the first whose similarity, alone and on average in contexts it was not trained in, reaches --stop-at ({AUTO_STOP_AT:g} unless given), else the closest.",
)
OTHERS = (
    model_option,
    device_option,
    click.option(
        "--precision",
        type=click.Choice(["float32", "bfloat16"]),
        default="float32",
        show_default=True,
        help="Arithmetic of the text encoder; bfloat16 halves its memory and is a little less exact; its speed on GPUs has not been measured.",
    ),
    click.option(
        "--steps",
        type=int,
        default=DEFAULT.steps,
        show_default=True,
        help="Optimizer steps at most; the rate falls to zero over them.",
    ),
    click.option(
        "--stop-at",
        type=float,
        help="Stop once the similarity (pooled, whatever the objective), alone and on average in the training contexts, reaches this, such as 0.99. With --tokens auto: what to reach; nothing stops early.",
    ),
    click.option("--patience", type=int, help="Stop once the loss has not fallen for this many steps."),
    click.option(
        "--rate",
        type=float,
        default=DEFAULT.rate,
        show_default=True,
        help="Adam's learning rate, in standard deviations of the token table: the same number fits every model.",
    ),
    click.option(
        "--init",
        type=choice(Init),
        default=DEFAULT.init,
        show_default=True,
        help="Begin from noise, from random vocabulary tokens, from the prompt's own words, or (with train's --from) from a saved soft prompt.",
    ),
    click.option(
        "--objective",
        type=choice(ObjectiveName),
        default=DEFAULT.objective,
        show_default=True,
        help="Cosine distance of the pooled embeddings; their squared error; cosine distance that also pushes away from the prompts in --against. For those who take the soft prompt to a diffusion model, which reads hidden states: their distance (hidden), or both (mixed).",
    ),
    click.option(
        "--family",
        type=choice(ImageProgram),
        default=DEFAULT.family,
        show_default=True,
        help="Whose hidden states the objectives hidden and mixed look at: those that Stable Diffusion 1.x or 2.x, SDXL or Flux reads.",
    ),
    click.option(
        "--hidden-share",
        type=float,
        default=DEFAULT.hidden_share,
        show_default=True,
        help="How much of the mixed objective is the hidden states'; the rest is the pooled similarity's.",
    ),
    click.option(
        "--against",
        multiple=True,
        metavar="TEXT",
        help="Another prompt to be told apart from (contrastive objective); repeatable.",
    ),
    click.option(
        "--context",
        "contexts",
        multiple=True,
        metavar="TEXT",
        help="Train inside this sentence, {} standing for the soft prompt, instead of the built-in ones; repeatable.",
    ),
    click.option(
        "--no-contexts",
        is_flag=True,
        help="Train the prompt alone: closer by itself, but it breaks beside other words.",
    ),
    click.option(
        "--no-norm-projection", is_flag=True, help="Let soft tokens grow longer than the vocabulary's mean norm."
    ),
    click.option(
        "--restarts",
        type=int,
        default=DEFAULT.restarts,
        show_default=True,
        help="Train this many at once from different noise; keep the best.",
    ),
    click.option(
        "--seed", type=int, default=DEFAULT.seed, show_default=True, help="The same seed on a cpu gives the same bits."
    ),
    click.option(
        "--long",
        type=choice(Long),
        default=DEFAULT.long,
        show_default=True,
        help="A prompt longer than the model's context: refuse it, train on the mean of its chunks, or cut it.",
    ),
)


plain_option = click.option(
    "--plain",
    is_flag=True,
    help="Remove what image programs read as syntax from the prompt: weights such as (fox:1.3), BREAK, LoRA tags, wildcards; "
    "of {a|b} the first is left.",
)


def prepared(prompt: str, plain: bool) -> str:
    """The prompt to train. Says once on stderr what image programs would read as syntax in it."""
    from softprompt.prompts.syntax import describe_syntax, prepare_prompt  # 7 ms of patterns to compile

    result = prepare_prompt(prompt, plain)
    if result.kinds:
        narrate(f"note: {describe_syntax(result.kinds, plain)}")
    return result.text


def training_options(command: Command) -> Command:
    """Gives a command the settings of a training. `config_of` takes them, but for model, device and precision."""
    return TOKENS(other_options(command))


def other_options(command: Command) -> Command:
    """Those but for the number of tokens."""
    for option in reversed(OTHERS):
        command = option(command)
    return command


def config_of(settings: dict[str, Any]) -> TrainConfig:
    """The configuration that the options ask for. Raises ConfigError."""
    contexts, no_contexts = settings.pop("contexts"), settings.pop("no_contexts")
    if contexts and no_contexts:
        raise ConfigError("--context and --no-contexts exclude each other: give one of them")
    if contexts or no_contexts:
        settings["contexts"] = contexts
    if settings["tokens"] == "auto" and settings["stop_at"] is None:
        settings["stop_at"] = AUTO_STOP_AT
    return TrainConfig(project_norm=not settings.pop("no_norm_projection"), **settings)
