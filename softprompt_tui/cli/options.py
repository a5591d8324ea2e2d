"""The training settings as command-line options, and the configuration built from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from softprompt.config import (
    AUTO_KL_SHARE,
    AUTO_STOP_AT,
    Init,
    LongPromptPolicy,
    ObjectiveName,
    Placement,
    TrainConfig,
    config_for,
)
from softprompt.encoders.catalog import model_kind
from softprompt.errors import ConfigError
from softprompt.text_states import ImageProgram
from softprompt_tui.cli.common import device_option, model_option, narrate

DEFAULT, CAUSAL_DEFAULT = TrainConfig(), config_for("causal", {})
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


def _by_kind(name: str) -> str:
    """Return the default of a setting, and that for language models."""
    return f"{getattr(DEFAULT, name)}; language models: {getattr(CAUSAL_DEFAULT, name)}"


def choice(values: Any) -> click.Choice[str]:
    return click.Choice(list(values.__args__))


tokens_option = click.option(
    "--tokens",
    "-k",
    type=TokenCount(),
    metavar="N|auto",
    show_default=_by_kind("tokens"),
    help="Number of soft tokens. auto trains with 1, 2, … up to 16 and keeps the first result whose similarity and "
    f"mean similarity in held-out contexts reach --stop-at (default for auto: {AUTO_STOP_AT:g}), or else the closest "
    "one. With a language model: 1, 2, 4, … up to 32, and the first result whose KL on held-out questions is at most "
    f"--stop-at ({AUTO_KL_SHARE:g}) of the KL of as many tokens of the prompt itself.",
)
# options that `tune` shares
precision_option = click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Precision of the model. bfloat16 halves its memory and is slightly less exact; its speed on GPUs "
    "has not been measured.",
)
norm_option = click.option(
    "--no-norm-projection", is_flag=True, help="Let soft tokens exceed the vocabulary's mean norm."
)
patience_option = click.option(
    "--patience", type=int, help="Stop early if the loss has not fallen for this many steps."
)
restarts_option = click.option(
    "--restarts",
    type=int,
    default=DEFAULT.restarts,
    show_default=True,
    help="Train this many in parallel, each from a different start, and keep the best.",
)
seed_option = click.option(
    "--seed",
    type=int,
    default=DEFAULT.seed,
    show_default=True,
    help="Random seed. On a CPU, the same seed and OMP_NUM_THREADS=1 give bit-identical results.",
)
placement_option = click.option(
    "--placement",
    type=choice(Placement),
    default=DEFAULT.placement,
    show_default=True,
    help="Language models: where the soft tokens stand: in place of the system text, before the user's text, or before "
    "a plain text that uses no chat template.",
)
OTHER_OPTIONS = (
    model_option,
    device_option,
    precision_option,
    click.option(
        "--steps",
        type=int,
        show_default=_by_kind("steps"),
        help="Maximum number of optimizer steps. The learning rate falls to zero over them.",
    ),
    click.option(
        "--stop-at",
        type=float,
        help="Stop early once the pooled similarity and its mean in the training contexts reach this value, such as "
        "0.99. With --tokens auto it is the goal, and nothing stops early.",
    ),
    patience_option,
    click.option(
        "--rate",
        type=float,
        show_default=_by_kind("rate"),
        help="Adam's learning rate, in standard deviations of the token table, so that one value suits every model.",
    ),
    click.option(
        "--init",
        type=choice(Init),
        show_default=_by_kind("init"),
        help="Start from noise, from random vocabulary tokens, from tokens spread over the prompt, from its first "
        "tokens, or (soft, with train's --from) from a saved soft prompt.",
    ),
    click.option(
        "--objective",
        type=choice(ObjectiveName),
        metavar="NAME",
        show_default=_by_kind("objective"),
        help="What training minimizes: the cosine distance between pooled embeddings (cosine), their squared error "
        "(mse), or the cosine distance while pushing away from the --against prompts (contrastive). For diffusion "
        "models, which use hidden states: the distance between hidden states (hidden), or a mix of that and the "
        "pooled distance (mixed). For language models: the KL divergence from the model's own answers with the prompt "
        "in place (distill).",
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
    norm_option,
    restarts_option,
    seed_option,
    click.option(
        "--long",
        type=choice(LongPromptPolicy),
        default=DEFAULT.long,
        show_default=True,
        help="If the prompt exceeds the model's context: refuse it, train on the mean of its chunks, or cut it.",
    ),
    placement_option,
    click.option(
        "--questions",
        "questions_file",
        metavar="FILE",
        type=click.Path(),
        help="Language models: a text file with one question per line, instead of the built-in ones. The last quarter "
        "is held out for grading, so mix the topics.",
    ),
    click.option(
        "--self-study",
        type=int,
        metavar="N",
        default=DEFAULT.self_study,
        show_default=True,
        help="Language models: also train on N questions that the model writes itself about the prompt.",
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


def config_from_options(settings: dict[str, Any], model: str) -> TrainConfig:
    """Build the configuration from the options' values, with the defaults of the kind of model.

    Raises:
        ConfigError: the settings make no sense.
        FileRefused: the file of --questions cannot be used.
    """
    kind = model_kind(model)
    contexts, no_contexts = settings.pop("contexts"), settings.pop("no_contexts")
    if contexts and no_contexts:
        raise ConfigError("--context and --no-contexts exclude each other. Use only one of them.")
    if contexts or no_contexts:
        settings["contexts"] = contexts
    if file := settings.pop("questions_file"):
        from softprompt.prompts.questions import read_questions

        settings["questions"] = read_questions(file)
    if settings["tokens"] == "auto" and settings["stop_at"] is None:
        settings["stop_at"] = AUTO_STOP_AT if kind == "text" else AUTO_KL_SHARE
    settings["project_norm"] = not settings.pop("no_norm_projection")
    return config_for(kind, {name: value for name, value in settings.items() if value is not None})
