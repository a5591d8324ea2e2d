"""Train soft prompts: for one text or several, for several token counts, for examples, or again for another model."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, overload

from torch import Tensor

from softprompt.api.progress import ProgressBar
from softprompt.api.values import as_soft_prompt, as_weighted_texts, check_meaning_is_known
from softprompt.arguments import checked, checked_fields, convert_fields
from softprompt.config import (
    DEFAULT_SWEEP,
    TrainConfig,
    TrainSettings,
    check_objective,
    config_for,
    config_for_examples,
)
from softprompt.encoders.causal_lm.model import CausalLM
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.errors import ArgumentError, SoftPromptError
from softprompt.jobs.job import port_config
from softprompt.library.entry import Entry
from softprompt.prompts.examples import ExampleList, list_examples, read_examples, split_examples
from softprompt.prompts.lineage import Ancestor, WeightedText
from softprompt.prompts.optional_packages import data_frame
from softprompt.prompts.soft_prompt import Array, SoftPrompt
from softprompt.prompts.visible_text import format_number, short_repr
from softprompt.system.generators import drive
from softprompt.training import trainer
from softprompt.training.errors import TrainingFailed
from softprompt.training.loop import Interval, Report
from softprompt.training.model_kinds import tokenize
from softprompt.training.task import TrainingState, TrainingTask
from softprompt.training.token_sweep import SweepReport, sweep_results

if TYPE_CHECKING:
    from pandas import DataFrame

_INTERVAL = 10  # steps between reports
Meanings = Sequence[WeightedText | tuple[str, float]]


@overload
def train(  # type: ignore[overload-overlap]  # a string is a sequence of strings too, but the first overload wins
    encoder: TextEncoder | CausalLM,
    text: str,
    config: TrainConfig | None = None,
    *,
    meanings: Sequence[WeightedText | tuple[str, float]] = (),
    start: SoftPrompt | Entry | Array | Tensor | None = None,
    on_report: Callable[[Report], bool | None] | None = None,
    interval: Interval = _INTERVAL,
    resume: TrainingState | None = None,
    progress: bool = False,
    **settings: Unpack[TrainSettings],
) -> SoftPrompt: ...


@overload
def train(
    encoder: TextEncoder | CausalLM,
    text: Sequence[str],
    config: TrainConfig | None = None,
    *,
    progress: bool = False,
    **settings: Unpack[TrainSettings],
) -> list[SoftPrompt]: ...


@checked(settings=TrainSettings)
def train(
    encoder: TextEncoder | CausalLM,
    text: str | Sequence[str],
    config: TrainConfig | None = None,
    *,
    meanings: Sequence[WeightedText | tuple[str, float]] = (),
    start: SoftPrompt | Entry | Array | Tensor | None = None,
    on_report: Callable[[Report], bool | None] | None = None,
    interval: Interval = _INTERVAL,
    resume: TrainingState | None = None,
    progress: bool = False,
    **settings: Unpack[TrainSettings],
) -> SoftPrompt | list[SoftPrompt]:
    """Train a soft prompt for the hard prompt `text`, or one for each text of a list, together in one batch.

    Args:
        config: the settings; `settings` override its fields.
        meanings: weighted texts, or (text, weight) pairs, to train on instead; `text` is then only a label.
        start: the soft prompt or vectors (tokens, width) to start from with init="soft".
        on_report: called with each report; returns True to stop and keep the best so far.
        interval: steps between reports, or a function that takes a step and returns whether a report is due.
        resume: the state of an earlier report, to continue from. All other arguments must be the same as in that run.
        progress: show a progress bar.
        settings: fields of TrainConfig, such as tokens=3 or stop_at=0.99.

    Returns:
        The soft prompt. For a list, the soft prompts in its order; a training run that failed gives its best so far,
        with a warning.

    Raises:
        ArgumentError: an argument has the wrong type or name.
        PromptError: a text cannot be trained.
        ConfigError: the settings cannot be used.
        TrainingFailed: training failed. The error carries the best soft prompt so far.

    Example:
        encoder = load_encoder("mini")
        train(encoder, "a red fox in the snow", tokens=3, steps=50).vectors.shape  # (3, 256)
    """
    if isinstance(text, str):
        with ProgressBar(progress, "training") as bar:
            training = _iter_train(encoder, text, _merge(encoder, config, settings), meanings, start, interval, resume)
            return drive(training, bar.watch(_figures, on_report))
    alone = {
        "meanings": bool(meanings),
        "start": start is not None,
        "on_report": on_report is not None,
        "interval": interval != _INTERVAL,
        "resume": resume is not None,
    }
    for name, is_given in alone.items():
        if is_given:
            raise ArgumentError(f"{name} needs a single text, but text is a list. Train the texts one by one.")
    return _train_list(encoder, text, _merge(encoder, config, settings), progress)


@checked(settings=TrainSettings)
def iter_train(
    encoder: TextEncoder | CausalLM,
    text: str,
    config: TrainConfig | None = None,
    *,
    meanings: Sequence[WeightedText | tuple[str, float]] = (),
    start: SoftPrompt | Entry | Array | Tensor | None = None,
    interval: Interval = _INTERVAL,
    resume: TrainingState | None = None,
    **settings: Unpack[TrainSettings],
) -> Generator[Report, bool | None, SoftPrompt]:
    """Do the same as `train` for one text, as a generator of reports. The last report's `result` is the soft prompt.

    Send True to stop and keep the best so far: the generator then returns the soft prompt.

    Example:
        for report in iter_train(encoder, "a red fox in the snow", tokens=3):
            print(report.step, report.loss)
        soft_prompt = report.result
    """
    return _iter_train(encoder, text, _merge(encoder, config, settings), meanings, start, interval, resume)


@checked_fields
@dataclass(frozen=True, eq=False)
class Sweep(Sequence[SoftPrompt]):
    """The soft prompts of a sweep, in increasing order of tokens.

    Attributes:
        knee: the soft prompt beyond which more tokens help little.
    """

    prompts: tuple[SoftPrompt, ...]

    def __post_init__(self) -> None:
        convert_fields(self)

    @property
    def knee(self) -> SoftPrompt:
        if not self.prompts:
            raise ArgumentError("an empty sweep has no knee")
        marked = next(result.tokens for result in sweep_results(list(self.prompts)) if result.knee)
        return next(prompt for prompt in self.prompts if prompt.tokens == marked)

    @overload
    def __getitem__(self, index: int) -> SoftPrompt: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[SoftPrompt]: ...

    def __getitem__(self, index: int | slice) -> SoftPrompt | Sequence[SoftPrompt]:
        return self.prompts[index]

    def __len__(self) -> int:
        return len(self.prompts)

    def __eq__(self, other: object) -> bool:
        return self.prompts == other.prompts if isinstance(other, Sweep) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.prompts)

    def to_dataframe(self) -> DataFrame:
        """Return a pandas table with one row per soft prompt: its tokens, its figures, and whether it is the knee.

        Raises:
            MissingPackage: pandas is not installed.
        """
        results = [vars(result) for result in sweep_results(list(self.prompts))] if self.prompts else []
        return data_frame({name: [result[name] for result in results] for name in results[0]} if results else {})

    def __repr__(self) -> str:
        counts = tuple(prompt.tokens for prompt in self.prompts)
        return short_repr("Sweep", tokens=counts, knee=self.knee.tokens if counts else None)


@checked(settings=TrainSettings)
def sweep(
    encoder: TextEncoder | CausalLM,
    text: str,
    token_counts: Sequence[int] = DEFAULT_SWEEP,
    config: TrainConfig | None = None,
    *,
    meanings: Sequence[WeightedText | tuple[str, float]] = (),
    on_report: Callable[[SweepReport], bool | None] | None = None,
    interval: Interval = _INTERVAL,
    progress: bool = False,
    **settings: Unpack[TrainSettings],
) -> Sweep:
    """Train `text` once per token count, all in one batch.

    A training run that fails gives its best soft prompt so far, with a warning.

    Args:
        token_counts: numbers of soft tokens, such as range(1, 9); by default 1 to 16.
        config: the settings for all token counts; `settings` override its fields, and `tokens` is ignored.
        on_report: called with each report; returns True to stop and keep the best so far.
        progress: show a progress bar.

    Raises:
        PromptError: the text cannot be trained.
        ConfigError: the settings cannot be used.
        TrainingFailed: every training run failed without a usable result.

    Example:
        results = sweep(encoder, "a red fox in the snow", range(1, 9))
        results.knee.tokens
    """
    with ProgressBar(progress, "sweep") as bar:
        training = trainer.sweep(
            encoder,
            text,
            token_counts,
            _merge(encoder, config, settings),
            meanings=as_weighted_texts("meanings", meanings),
            interval=interval,
        )
        return Sweep(tuple(drive(training, bar.watch(_sweep_figures, on_report))))


@checked(settings=TrainSettings)
def tune(
    encoder: TextEncoder | CausalLM,
    examples: Path | str | Iterable[tuple[str, str] | Mapping[str, str]],
    *,
    held_out: Path | str | Iterable[tuple[str, str] | Mapping[str, str]] | None = None,
    on_report: Callable[[Report], bool | None] | None = None,
    interval: Interval = _INTERVAL,
    resume: TrainingState | None = None,
    progress: bool = False,
    **settings: Unpack[TrainSettings],
) -> SoftPrompt:
    """Tune a soft prompt on examples: the language model learns to give the outputs for the inputs.

    The soft prompt is graded on examples that training does not see. `SoftPrompt.examples` has the figures, beside
    those of a few-shot prompt made of the same training examples and of no prompt.

    Args:
        encoder: a language model, see `load_causal_lm`.
        examples: (input, output) pairs, mappings with these keys, or the path of a file with one JSON object per line,
            such as {"input": "The tap drips.", "output": "plumbing"}. At least 4.
        held_out: other examples to grade on. By default a quarter of `examples`, at least 2 and at most 200.
        on_report: called with each report, whose `similarity` is the share of output tokens that the model expects;
            returns True to stop and keep the best so far.
        interval: steps between reports, or a function that takes a step and returns whether a report is due.
        resume: the state of an earlier report, to continue from. All other arguments must be the same as in that run.
        progress: show a progress bar.
        settings: fields of TrainConfig, such as tokens=8, steps=200, placement="user" or instruction="Sort this.",
            whose first tokens training then starts from.

    Raises:
        ArgumentError: an argument has the wrong type or name, or an example is empty, too long or repeated.
        FileRefused: the file cannot be read, or a line of it is no example.
        PromptError: an example contains a special token, or is too long for the model.
        ConfigError: the settings cannot be used, there are too few examples, or the model is a text encoder.
        TrainingFailed: training failed. The error carries the best soft prompt so far.

    Example:
        model = load_causal_lm("smollm2")
        prompt = tune(model, "tickets.jsonl", tokens=8)
        prompt.examples.score.accuracy, prompt.examples.floors["few-shot"].accuracy
    """
    config = config_for_examples(settings)
    check_objective(config, encoder.kind, encoder.name)
    given = split_examples(
        _as_examples("examples", examples), None if held_out is None else _as_examples("held_out", held_out)
    )
    with ProgressBar(progress, "tuning") as bar:
        training = trainer.iter_train(encoder, given.summary, config, interval=interval, resume=resume, examples=given)
        return drive(training, bar.watch(_example_figures, on_report))


@checked(settings=TrainSettings)
def port(
    encoder: TextEncoder | CausalLM,
    prompt: SoftPrompt | Entry,
    *,
    on_report: Callable[[Report], bool | None] | None = None,
    interval: Interval = _INTERVAL,
    progress: bool = False,
    **settings: Unpack[TrainSettings],
) -> SoftPrompt:
    """Train a soft prompt again for another model, with the same hard prompt and settings.

    Vectors only work with the model that they were trained for.

    Args:
        encoder: the model to train for.
        settings: fields of TrainConfig to change.

    Raises:
        PromptError: the hard prompt is unknown, or the model cannot use it.
        ConfigError: the settings cannot be used with the model.
        TrainingFailed: training failed. The error carries the best soft prompt so far.
    """
    old = as_soft_prompt(prompt)
    check_meaning_is_known(old)
    config = _merge(encoder, port_config(old, encoder.kind), settings)
    entry_id = prompt.id if isinstance(prompt, Entry) else ""
    ancestor = Ancestor("ported", entry_id, old.name, old.hard_prompt, old.model, old.model_fingerprint)
    with ProgressBar(progress, "training") as bar:
        training = trainer.iter_train(encoder, old.hard_prompt, config, meanings=old.meanings, interval=interval)
        ported = drive(training, bar.watch(_figures, on_report))
    return replace(ported, name=old.name, ancestry=(ancestor,))


def _merge(encoder: TextEncoder | CausalLM, config: TrainConfig | None, settings: Mapping[str, Any]) -> TrainConfig:
    """Return the settings of a training: `config`, or the defaults of the kind of model, changed by `settings`."""
    return replace(config, **settings) if config is not None else config_for(encoder.kind, settings)


def _iter_train(
    encoder: TextEncoder | CausalLM,
    text: str,
    config: TrainConfig,
    meanings: Meanings,
    start: SoftPrompt | Entry | Array | Tensor | None,
    interval: Interval,
    resume: TrainingState | None,
) -> Generator[Report, bool | None, SoftPrompt]:
    start = start.prompt if isinstance(start, Entry) else start
    weighted = as_weighted_texts("meanings", meanings)
    return trainer.iter_train(encoder, text, config, meanings=weighted, start=start, interval=interval, resume=resume)


def _train_list(
    encoder: TextEncoder | CausalLM, texts: Sequence[str], config: TrainConfig, progress: bool
) -> list[SoftPrompt]:
    """Train all texts in one batch or, with tokens="auto", one after another."""
    for text in texts:  # before training, so that one wrong text costs nothing
        tokenize(encoder, text, (), config)
    results: dict[int, SoftPrompt] = {}
    with ProgressBar(progress, "training", "prompt") as bar:
        for number, outcome in _train_each(encoder, texts, config):
            if isinstance(outcome, TrainingFailed) and outcome.best is not None:
                outcome = replace(outcome.best, warnings=(*outcome.best.warnings, str(outcome)))
            if isinstance(outcome, SoftPromptError):
                raise outcome
            results[number] = outcome
            bar.show(len(results), len(texts))
    return [results[number] for number in range(len(texts))]


def _train_each(
    encoder: TextEncoder | CausalLM, texts: Sequence[str], config: TrainConfig
) -> Iterator[tuple[int, SoftPrompt | SoftPromptError]]:
    """Train all texts. Yields the number of each text with its soft prompt or error, as it ends."""
    if config.tokens != "auto":
        tasks = (TrainingTask(text, config, key=str(number)) for number, text in enumerate(texts))
        for task, outcome in trainer.train_many(encoder, tasks):
            yield int(task.key), outcome
        return
    for number, text in enumerate(texts):
        try:
            yield number, trainer.train(encoder, text, config)
        except SoftPromptError as error:
            yield number, error


def _as_examples(name: str, value: Path | str | Iterable[Any]) -> ExampleList:
    return read_examples(value) if isinstance(value, Path | str) else list_examples(name, value)


def _example_figures(report: Report) -> dict[str, str]:
    return {"loss": format_number(report.loss), "accuracy": format_number(report.similarity)}


def _figures(report: Report) -> dict[str, str]:
    return {"loss": format_number(report.loss), "similarity": format_number(report.similarity)}


def _sweep_figures(report: SweepReport) -> dict[str, str]:
    (first, low, _), (last, high, _) = report.results[0], report.results[-1]
    return {f"similarity[{first}]": format_number(low), f"similarity[{last}]": format_number(high)}
