"""The training settings as command-line options, and the configuration built from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from softprompt.config import AUTO_STOP_AT, Init, LongPromptPolicy, ObjectiveName, TrainConfig
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


tokens_option = click.option(
    "--tokens",
    "-k",
    type=TokenCount(),
    metavar="N|auto",
    default=DEFAULT.tokens,
    show_default=True,
    help="Number of soft tokens. auto trains with 1, 2, … up to 16 and keeps the first result whose similarity and "
    "mean "
    f"similarity in held-out contexts reach --stop-at (default for auto: {AUTO_STOP_AT:g}), or else the closest one.",
)
OTHER_OPTIONS = (
    model_option,
    device_option,
    click.option(
        "--precision",
        type=click.Choice(["float32", "bfloat16"]),
        default="float32",
        show_default=True,
        help="Precision of the text encoder. bfloat16 halves its memory and is slightly less exact; its speed on GPUs "
        "has not been measured.",
    ),
    click.option(
        "--steps",
        type=int,
        default=DEFAULT.steps,
        show_default=True,
        help="Maximum number of optimizer steps. The learning rate falls to zero over them.",
    ),
    click.option(
        "--stop-at",
        type=float,
        help="Stop early once the pooled similarity and its mean in the training contexts reach this value, such as "
        "0.99. With --tokens auto it is the goal, and nothing stops early.",
    ),
    click.option("--patience", type=int, help="Stop early if the loss has not fallen for this many steps."),
    click.option(
        "--rate",
        type=float,
        default=DEFAULT.rate,
        show_default=True,
        help="Adam's learning rate, in standard deviations of the token table, so that one value suits every model.",
    ),
    click.option(
        "--init",
        type=choice(Init),
        default=DEFAULT.init,
        show_default=True,
        help="Start from noise, from random vocabulary tokens, from the prompt's own words, or (soft, with train's "
        "--from) from a saved soft prompt.",
    ),
    click.option(
        "--objective",
        type=choice(ObjectiveName),
        default=DEFAULT.objective,
        show_default=True,
        help="What training minimizes: the cosine distance between pooled embeddings (cosine), their squared error "
        "(mse), or the cosine distance while pushing away from the --against prompts (contrastive). For diffusion "
        "models, which use hidden states: the distance between hidden states (hidden), or a mix of that and the "
        "pooled distance (mixed).",
    ),
    click.option(
        "--family",
        type=choice(ImageProgram),
        default=DEFAULT.family,
        show_default=True,
        help="The program whose hidden states the objectives hidden and mixed compare: Stable Diffusion 1.x or 2.x, "
        "SDXL or Flux.",
    ),
    click.option(
        "--hidden-share",
        type=float,
        default=DEFAULT.hidden_share,
        show_default=True,
        help="Weight of the hidden states in the mixed objective. The rest goes to the pooled similarity.",
    ),
    click.option(
        "--against",
        multiple=True,
        metavar="TEXT",
        help="A prompt to stay away from (contrastive objective). Repeatable.",
    ),
    click.option(
        "--context",
        "contexts",
        multiple=True,
        metavar="TEXT",
        help="Train inside this sentence instead of the built-in ones; {} marks the soft prompt. Repeatable.",
    ),
    click.option(
        "--no-contexts",
        is_flag=True,
        help="Train the prompt alone. The result is more similar by itself, but fails next to other words.",
    ),
    click.option("--no-norm-projection", is_flag=True, help="Let soft tokens exceed the vocabulary's mean norm."),
    click.option(
        "--restarts",
        type=int,
        default=DEFAULT.restarts,
        show_default=True,
        help="Train this many in parallel, each from different noise, and keep the best.",
    ),
    click.option(
        "--seed",
        type=int,
        default=DEFAULT.seed,
        show_default=True,
        help="Random seed. On a CPU, the same seed and OMP_NUM_THREADS=1 give bit-identical results.",
    ),
    click.option(
        "--long",
        type=choice(LongPromptPolicy),
        default=DEFAULT.long,
        show_default=True,
        help="If the prompt exceeds the model's context: refuse it, train on the mean of its chunks, or cut it.",
    ),
)


plain_option = click.option(
    "--plain",
    is_flag=True,
    help="Remove image-program syntax from the prompt: weights such as (fox:1.3), BREAK, LoRA tags, wildcards; "
    "{a|b} becomes a.",
)


def prepare_prompt_text(prompt: str, plain: bool) -> str:
    """Return the prompt to train. Prints a note if it contains image-program syntax."""
    from softprompt.prompts.syntax import describe_syntax, prepare_prompt  # the import compiles patterns for 7 ms

    result = prepare_prompt(prompt, plain)
    if result.kinds:
        narrate(f"note: {describe_syntax(result.kinds, plain)}")
    return result.text


def training_options(command: Command) -> Command:
    """Add all training options to a command. `config_from_options` uses all but model, device and precision."""
    return tokens_option(other_options(command))


def other_options(command: Command) -> Command:
    """Add the training options to a command, except --tokens."""
    for option in reversed(OTHER_OPTIONS):
        command = option(command)
    return command


def config_from_options(settings: dict[str, Any]) -> TrainConfig:
    """Build the configuration from the options' values. Raises ConfigError."""
    contexts, no_contexts = settings.pop("contexts"), settings.pop("no_contexts")
    if contexts and no_contexts:
        raise ConfigError("--context and --no-contexts exclude each other. Use only one of them.")
    if contexts or no_contexts:
        settings["contexts"] = contexts
    if settings["tokens"] == "auto" and settings["stop_at"] is None:
        settings["stop_at"] = AUTO_STOP_AT
    return TrainConfig(project_norm=not settings.pop("no_norm_projection"), **settings)
