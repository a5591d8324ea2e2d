"""Find the hard readout of a prompt by coordinate search or PEZ. Prints and writes nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from softprompt.config import MAX_STEPS, HardConfig
from softprompt.discrete.coordinate_search import INITIAL_TEMPERATURE, Candidate, CoordinateSearch
from softprompt.discrete.pez import Pez
from softprompt.discrete.scoring import Scorer
from softprompt.discrete.vocabulary import TypeableVocabulary
from softprompt.encoders.clip.rows import ALONE, rows_in_context
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.encoders.torch_settings import isolated, neutral_torch
from softprompt.errors import ConfigError, too_many_hard_tokens, wording
from softprompt.objectives.base import HardPrompt
from softprompt.objectives.hard_prompt import contexts_that_fit
from softprompt.objectives.pooled import encode_target
from softprompt.prompts.contexts import GRADING_CONTEXTS
from softprompt.prompts.results import HardReadout
from softprompt.prompts.visible_text import short_repr
from softprompt.system.generators import drive
from softprompt.system.threads import choose_threads

EXCHANGE_ROUNDS, PEZ_STEPS = 30, 400  # 5 to 10 s on two cores for k=8 on `mini`
PEZ_REPORT_STEPS = 10  # steps per report
MIN_POSITIONS = 256  # of a step; a round scores dozens of texts at a time, and PEZ compares with the whole vocabulary
MAX_PROMPT_TOKENS = 32  # tokens of the prompt that are offered to the first round


@dataclass(frozen=True, repr=False)
class HardReport:
    """Progress of a search, in rounds or optimizer steps, and the best text so far ("" if there is none)."""

    step: int
    steps: int
    similarity: float
    text: str
    seconds: float

    def __repr__(self) -> str:
        return short_repr(
            "HardReport", self.text, step=self.step, steps=self.steps, similarity=self.similarity, seconds=self.seconds
        )


def check_hard(encoder: TextEncoder, config: HardConfig) -> None:
    """Raise ConfigError if the tokens exceed the context length, or if the settings allow no token."""
    if config.tokens is not None:
        _check_fits(encoder, config.tokens)
    TypeableVocabulary.from_config(encoder, config)


def _check_fits(encoder: TextEncoder, k: int) -> None:
    if not 1 <= k <= encoder.max_prompt_tokens:
        raise too_many_hard_tokens(k, encoder.name, encoder.max_prompt_tokens)


HardSearch = Generator[HardReport, bool | None, HardReadout]


def find_hard(
    encoder: TextEncoder,
    prompt: HardPrompt,
    k: int,
    config: HardConfig | None = None,
    on_report: Callable[[HardReport], bool | None] | None = None,
) -> HardReadout:
    """Find a hard readout of `k` tokens.

    Args:
        config: settings. `tokens` is ignored; callers use it to choose k.
        on_report: called with each report; returns True to stop.

    Raises:
        ConfigError: the tokens do not fit, or the settings allow no text.
    """
    return drive(iter_hard(encoder, prompt, k, config), on_report)


def iter_hard(encoder: TextEncoder, prompt: HardPrompt, k: int, config: HardConfig | None = None) -> HardSearch:
    """Run `find_hard` as a generator that yields a HardReport per round or per 10 PEZ steps. Send True to stop."""
    with neutral_torch():
        limit = torch.get_num_threads() if encoder.device.type == "cpu" else 0
    threads = choose_threads(limit, MIN_POSITIONS * encoder.width**2) if limit else 0
    return (yield from isolated(_iter_hard(encoder, prompt, k, config or HardConfig()), threads))


def _iter_hard(encoder: TextEncoder, prompt: HardPrompt, k: int, config: HardConfig) -> HardSearch:
    _check_fits(encoder, k)
    vocabulary = TypeableVocabulary.from_config(encoder, config)
    target = F.normalize(encode_target(encoder, prompt, [ALONE])[0], dim=-1)
    searcher_class, default_steps, report_steps = (
        (_PezSearcher, PEZ_STEPS, PEZ_REPORT_STEPS)
        if config.method == "pez"
        else (_CoordinateSearcher, EXCHANGE_ROUNDS, 1)
    )
    searcher: Searcher = searcher_class(encoder, prompt, k, config, vocabulary, target)
    steps = config.steps or (MAX_STEPS if config.seconds else default_steps)
    started_at = time.perf_counter()
    step, stop = 0, False
    while step < steps and not stop:
        seconds = time.perf_counter() - started_at
        searcher.step(max(step / steps, seconds / config.seconds if config.seconds else 0.0))
        step += 1
        seconds = time.perf_counter() - started_at
        is_last = step == steps or bool(config.seconds and seconds >= config.seconds)
        if step % report_steps == 0 or is_last:
            row, similarity = searcher.best
            text = "" if row is None else vocabulary.decode(row)
            # with a time limit, the total number of steps is an estimate
            total = min(steps, max(step, round(step * config.seconds / seconds))) if config.seconds else steps
            stop = (
                bool(
                    (
                        yield HardReport(
                            step, step if is_last else total, similarity if row is not None else 0.0, text, seconds
                        )
                    )
                )
                or is_last
            )
    return _readout(encoder, prompt, config, vocabulary, searcher, time.perf_counter() - started_at)


class Searcher(Protocol):
    """A running search method."""

    @property
    def best(self) -> Candidate: ...

    @property
    def evaluated(self) -> int: ...

    def step(self, progress: float, /) -> None: ...


class _CoordinateSearcher:
    def __init__(
        self,
        encoder: TextEncoder,
        prompt: HardPrompt,
        k: int,
        config: HardConfig,
        vocabulary: TypeableVocabulary,
        target: Tensor,
    ) -> None:
        rng = torch.Generator().manual_seed(config.seed)
        start, prompt_tokens = _init_tokens(prompt, k, config, vocabulary, rng)
        self.search = CoordinateSearch(Scorer(encoder, target), vocabulary, start, rng, prompt_tokens)

    def step(self, progress: float) -> None:
        self.search.step(INITIAL_TEMPERATURE * (1 - progress))

    @property
    def best(self) -> Candidate:
        return self.search.best

    @property
    def evaluated(self) -> int:
        return self.search.scorer.evaluated


class _PezSearcher:
    def __init__(
        self,
        encoder: TextEncoder,
        prompt: HardPrompt,
        k: int,
        config: HardConfig,
        vocabulary: TypeableVocabulary,
        target: Tensor,
    ) -> None:
        rng = torch.Generator().manual_seed(config.seed)
        start, _ = _init_tokens(prompt, k, config, vocabulary, rng)
        self.pez = Pez(encoder, target.expand(len(start), -1), start, vocabulary.ids)
        self.vocabulary = vocabulary
        self.best = Candidate(None, -math.inf)
        self.evaluated = 0

    def step(self, _progress: float) -> None:
        tokens, similarities = self.pez.step()
        self.evaluated += len(tokens)
        for row, similarity in zip(tokens, similarities.tolist(), strict=True):
            if similarity > self.best.similarity and self.vocabulary.survives(row):
                self.best = Candidate(row.clone(), similarity)


def random_tokens(ids: Tensor, count: int, k: int, rng: torch.Generator) -> Tensor:
    """Return (count, k) random tokens of `ids` (m,). `rng` is on the CPU, so that every device starts alike."""
    return ids[torch.randint(len(ids), (count, k), generator=rng).to(ids.device)]


def _init_tokens(
    prompt: HardPrompt, k: int, config: HardConfig, vocabulary: TypeableVocabulary, rng: torch.Generator
) -> tuple[Tensor, Tensor | None]:
    """Return start tokens (r, k) and, for init "words", the prompt's distinct tokens, which also fill the first row."""
    start = random_tokens(vocabulary.ids, config.restarts, k, rng)
    if config.init == "random":
        return start, None
    prompt_tokens = [token for chunk in prompt.chunks for token in chunk if token in vocabulary]
    if prompt_tokens:
        spread = torch.linspace(0, len(prompt_tokens) - 1, min(k, len(prompt_tokens))).round().long().tolist()
        start[0, : len(spread)] = start.new_tensor([prompt_tokens[i] for i in spread])
    return start, start.new_tensor(list(dict.fromkeys(prompt_tokens))[:MAX_PROMPT_TOKENS])


@torch.no_grad()
def _readout(
    encoder: TextEncoder,
    prompt: HardPrompt,
    config: HardConfig,
    vocabulary: TypeableVocabulary,
    searcher: Searcher,
    seconds: float,
) -> HardReadout:
    if searcher.best.row is None:
        settings = wording("--hard-words and --hard-block", "`words` and `block`")
        raise ConfigError(f"no text allowed by {settings} tokenizes back to its own tokens. Allow more words.")
    text = vocabulary.decode(searcher.best.row)
    row = encoder.tokenizer.encode(text)
    contexts = [ALONE, *contexts_that_fit(encoder, prompt, GRADING_CONTEXTS, len(row))]
    outputs = encoder.encode_rows([rows_in_context(encoder, context, [row])[0] for context in contexts])
    targets = F.normalize(encode_target(encoder, prompt, contexts), dim=-1)
    similarities = (outputs * targets).sum(-1)
    composed = float(similarities[1:].mean()) if len(contexts) > 1 else None
    return HardReadout(text, len(row), float(similarities[0]), composed, config.method, searcher.evaluated, seconds)
