"""From a hard prompt to its hard readout, by either method. Prints nothing, writes nothing, keeps no state."""

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
from softprompt.discrete.coordinate_search import WARMTH, Candidate, CoordinateSearch
from softprompt.discrete.pez import Pez
from softprompt.discrete.scoring import Scorer
from softprompt.discrete.vocabulary import TypeableVocabulary
from softprompt.encoders.clip.rows import ALONE, rows_in_context
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.errors import ConfigError, too_many_hard
from softprompt.objectives.base import HardPrompt
from softprompt.objectives.hard_prompt import contexts_that_fit
from softprompt.objectives.pooled import encode_targets_in
from softprompt.prompts.contexts import GRADING_CONTEXTS
from softprompt.prompts.results import HardReadout
from softprompt.system.generators import drive

ROUNDS, PEZ_STEPS = 30, 400  # 5 to 10 s on two cores for k=8 on `mini`
PEZ_EVERY = 10  # steps a report
MAX_OWN = 32  # of the prompt's own tokens


@dataclass(frozen=True)
class HardReport:
    """How far the search is: rounds or optimizer steps, and the best text so far, as it is when typed again ("" where there is none)."""

    step: int
    steps: int
    similarity: float
    text: str
    seconds: float


def check_hard(encoder: TextEncoder, config: HardConfig) -> None:
    """Raises ConfigError for more tokens than the context has room for, and where the settings leave no token."""
    if config.tokens is not None:
        _check_room(encoder, config.tokens)
    TypeableVocabulary.of(encoder, config)


def _check_room(encoder: TextEncoder, k: int) -> None:
    if not 1 <= k <= encoder.max_prompt_tokens:
        raise too_many_hard(k, encoder.name, encoder.max_prompt_tokens)


Searching = Generator[HardReport, bool | None, HardReadout]


def find_hard(
    encoder: TextEncoder,
    prompt: HardPrompt,
    k: int,
    config: HardConfig | None = None,
    on_report: Callable[[HardReport], bool | None] | None = None,
) -> HardReadout:
    """The best hard readout of `k` tokens that is found; `on_report` ends the search by returning True.

    `config.tokens` is for who chooses k. Raises ConfigError for more tokens than fit, and where the settings allow no text.
    """
    return drive(iter_hard(encoder, prompt, k, config), on_report)


def iter_hard(encoder: TextEncoder, prompt: HardPrompt, k: int, config: HardConfig | None = None) -> Searching:
    """As `find_hard`, but yields a HardReport each round (each tenth step of PEZ) and returns the readout; sending True stops it."""
    config = config or HardConfig()
    _check_room(encoder, k)
    typist = TypeableVocabulary.of(encoder, config)
    target = F.normalize(encode_targets_in(encoder, prompt, [ALONE])[0], dim=-1)
    make, usual, every = (_Pez, PEZ_STEPS, PEZ_EVERY) if config.method == "pez" else (_Exchange, ROUNDS, 1)
    finder: Searcher = make(encoder, prompt, k, config, typist, target)
    steps = config.steps or (MAX_STEPS if config.seconds else usual)
    began = time.perf_counter()
    step, stop = 0, False
    while step < steps and not stop:
        passed = time.perf_counter() - began
        finder.step(max(step / steps, passed / config.seconds if config.seconds else 0.0))
        step += 1
        passed = time.perf_counter() - began
        ends = step == steps or bool(config.seconds and passed >= config.seconds)
        if step % every == 0 or ends:
            row, similarity = finder.best
            text = "" if row is None else typist.text(row)
            # where the time decides, the steps in all are an estimate
            most = min(steps, max(step, round(step * config.seconds / passed))) if config.seconds else steps
            stop = (
                bool(
                    (
                        yield HardReport(
                            step, step if ends else most, similarity if row is not None else 0.0, text, passed
                        )
                    )
                )
                or ends
            )
    return _readout(encoder, prompt, config, typist, finder, time.perf_counter() - began)


class Searcher(Protocol):
    """A method at work."""

    @property
    def best(self) -> Candidate: ...

    @property
    def evaluated(self) -> int: ...

    def step(self, progress: float, /) -> None: ...


class _Exchange:
    def __init__(
        self,
        encoder: TextEncoder,
        prompt: HardPrompt,
        k: int,
        config: HardConfig,
        typist: TypeableVocabulary,
        target: Tensor,
    ) -> None:
        rng = torch.Generator().manual_seed(config.seed)
        start, own = _start(prompt, k, config, typist, rng)
        self.exchange = CoordinateSearch(Scorer(encoder, target), typist, start, rng, own)

    def step(self, progress: float) -> None:
        self.exchange.step(WARMTH * (1 - progress))

    @property
    def best(self) -> Candidate:
        return self.exchange.best

    @property
    def evaluated(self) -> int:
        return self.exchange.scorer.evaluated


class _Pez:
    def __init__(
        self,
        encoder: TextEncoder,
        prompt: HardPrompt,
        k: int,
        config: HardConfig,
        typist: TypeableVocabulary,
        target: Tensor,
    ) -> None:
        rng = torch.Generator().manual_seed(config.seed)
        start, _ = _start(prompt, k, config, typist, rng)
        self.pez = Pez(encoder, target.expand(len(start), -1), start, typist.ids)
        self.typist = typist
        self.best = Candidate(None, -math.inf)
        self.evaluated = 0

    def step(self, _progress: float) -> None:
        tokens, similarities = self.pez.step()
        self.evaluated += len(tokens)
        for row, similarity in zip(tokens, similarities.tolist(), strict=True):
            if similarity > self.best.similarity and self.typist.survives(row):
                self.best = Candidate(row.clone(), similarity)


def random_tokens(ids: Tensor, count: int, k: int, rng: torch.Generator) -> Tensor:
    """(count, k) of `ids` (m,); the randomness comes from the cpu, so that every device starts alike."""
    return ids[torch.randint(len(ids), (count, k), generator=rng).to(ids.device)]


def _start(
    prompt: HardPrompt, k: int, config: HardConfig, typist: TypeableVocabulary, rng: torch.Generator
) -> tuple[Tensor, Tensor | None]:
    """(tokens (r, k) to begin from, of which the first are the prompt's own where `config` says so; these own tokens, each once)."""
    start = random_tokens(typist.ids, config.restarts, k, rng)
    if config.init == "random":
        return start, None
    own = [token for piece in prompt.pieces for token in piece if token in typist]
    if own:
        spread = torch.linspace(0, len(own) - 1, min(k, len(own))).round().long().tolist()
        start[0, : len(spread)] = start.new_tensor([own[i] for i in spread])
    return start, start.new_tensor(list(dict.fromkeys(own))[:MAX_OWN])


@torch.no_grad()
def _readout(
    encoder: TextEncoder,
    prompt: HardPrompt,
    config: HardConfig,
    typist: TypeableVocabulary,
    finder: Searcher,
    seconds: float,
) -> HardReadout:
    if finder.best.row is None:
        raise ConfigError(
            "no text of these tokens survives being typed as --hard-words and --hard-block ask for: allow more"
        )
    text = typist.text(finder.best.row)
    row = encoder.tokenizer.encode(text)
    contexts = [ALONE, *contexts_that_fit(encoder, prompt, GRADING_CONTEXTS, len(row))]
    ours = encoder.encode_rows([rows_in_context(encoder, context, [row])[0] for context in contexts])
    wanted = F.normalize(encode_targets_in(encoder, prompt, contexts), dim=-1)
    similarities = (ours * wanted).sum(-1)
    composed = float(similarities[1:].mean()) if len(contexts) > 1 else None
    return HardReadout(text, len(row), float(similarities[0]), composed, config.method, finder.evaluated, seconds)
