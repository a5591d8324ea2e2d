"""Hard readouts: real tokens that survive re-tokenizing, found by coordinate search or PEZ."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from softprompt import Library, SoftPrompt, train
from softprompt.config import HardConfig, TrainConfig
from softprompt.discrete import HardReport, find_hard, iter_hard
from softprompt.discrete.coordinate_search import CoordinateSearch
from softprompt.discrete.pez import Pez
from softprompt.discrete.scoring import Scorer
from softprompt.discrete.search import random_tokens
from softprompt.discrete.vocabulary import TypeableVocabulary, typeable_tokens
from softprompt.encoders.base import SpecialTokens
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.encoders.clip.tokenizer import Tokenizer
from softprompt.encoders.clip.transformer import Block, TextTransformer, TextTransformerConfig
from softprompt.errors import ConfigError, PromptError
from softprompt.jobs.execute import run_job
from softprompt.jobs.job import Job, TrainJob, hard_readout_job
from softprompt.library.entry import pack, unpack
from softprompt.objectives.base import HardPrompt
from softprompt.objectives.hard_prompt import tokenize_prompt, tokenize_weighted
from softprompt.prompts.lineage import WeightedText
from softprompt.prompts.results import HardReadout
from tests.conftest import BOAT, FOX
from tests.library_model import a_prompt

QUICK = HardConfig(steps=3, restarts=1, init="random")
pytestmark = pytest.mark.usefixtures("cached_typeable")


@pytest.fixture(scope="module")
def vocabulary(encoder: TextEncoder) -> TypeableVocabulary:
    return TypeableVocabulary(encoder)


@pytest.fixture(scope="module")
def boat(encoder: TextEncoder) -> HardPrompt:
    return tokenize_prompt(encoder, BOAT)


def encode(encoder: TextEncoder, text: str) -> torch.Tensor:
    return encoder.encode([text])[0]


# texts that survive re-tokenizing


@given(st.data())
def test_typeable_tokens_survive_exactly_if_their_text_tokenizes_back(
    encoder: TextEncoder, vocabulary: TypeableVocabulary, data: st.DataObject
) -> None:
    row = data.draw(st.lists(st.integers(0, len(vocabulary.ids) - 1), min_size=1, max_size=12))
    ids = vocabulary.ids[row].tolist()
    retyped = encoder.tokenizer.encode(vocabulary.decode(ids))
    assert vocabulary.survives(ids) == (retyped == ids)


@given(st.lists(st.integers(0, 49405), min_size=1, max_size=8))
def test_any_tokens_survive_exactly_if_their_text_tokenizes_back(
    encoder: TextEncoder, vocabulary: TypeableVocabulary, ids: list[int]
) -> None:
    assert vocabulary.survives(ids) == (encoder.tokenizer.encode(encoder.tokenizer.decode(ids).strip()) == ids)


def test_every_typeable_token_survives_alone(encoder: TextEncoder) -> None:
    texts = typeable_tokens(encoder)
    assert len(texts) > 30_000
    assert all(encoder.tokenizer.decode([i]).strip() == texts[i] for i in list(texts)[::50])
    assert all(encoder.tokenizer.encode(texts[i]) == [i] for i in list(texts)[::50])


@pytest.mark.parametrize(("words", "min_count"), [("ascii", 30_000), ("dictionary", 30_000)])
def test_words_restrict_the_vocabulary(encoder: TextEncoder, words: str, min_count: int) -> None:
    vocabulary = TypeableVocabulary(encoder, words)  # type: ignore[arg-type]
    pieces = [vocabulary.decode([i]) for i in vocabulary.ids.tolist()]
    assert min_count < len(pieces) < len(TypeableVocabulary(encoder).ids)
    assert all(piece.isascii() for piece in pieces)
    assert words == "ascii" or all(piece.isalpha() and (len(piece) > 1 or piece in "ai") for piece in pieces)


def test_blocked_texts_are_in_no_token_and_no_text(encoder: TextEncoder) -> None:
    vocabulary = TypeableVocabulary(encoder, block=("BOAT", "red  Fox", ""))
    assert not any("boat" in vocabulary.decode([i]) for i in vocabulary.ids.tolist())
    assert vocabulary.survives(encoder.tokenize("a fox is red"))
    assert not vocabulary.survives(encoder.tokenize("a red fox"))
    assert not vocabulary.survives(encoder.tokenize("two boats"))


def test_settings_that_allow_no_token_are_rejected(encoder: TextEncoder) -> None:
    with pytest.raises(ConfigError, match="no token is left"):
        TypeableVocabulary(encoder, "dictionary", tuple("abcdefghijklmnopqrstuvwxyz"))


# scores


def test_scores_with_a_shared_prefix_match_those_of_whole_texts(
    encoder: TextEncoder, vocabulary: TypeableVocabulary
) -> None:
    rng = torch.Generator().manual_seed(0)
    rows = random_tokens(vocabulary.ids, 15, 6, rng).view(3, 5, 6)
    rows[:, :, :4] = rows[:, :1, :4]
    scorer = Scorer(encoder, encode(encoder, FOX))
    expected = encoder.encode_rows(rows.flatten(0, 1).tolist()) @ scorer.target
    for shared in (0, 2, 4):
        torch.testing.assert_close(scorer.score(rows, shared), expected, atol=1e-5, rtol=0)
    assert scorer.evaluated == 45


# PEZ


def test_stock_and_fast_pez_take_the_same_steps(encoder: TextEncoder, vocabulary: TypeableVocabulary) -> None:
    rng = torch.Generator().manual_seed(1)
    start = random_tokens(encoder.ordinary_ids, 2, 4, rng)
    targets = encoder.encode([FOX, BOAT])
    stock, fast = Pez(encoder, targets, start, stock=True), Pez(encoder, targets, start)
    for _ in range(3):
        fast_step, stock_step = fast.evaluate(), stock.evaluate()
        assert torch.equal(fast_step[0], stock_step[0])
        torch.testing.assert_close(fast_step[1], stock_step[1], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(fast_step[2], stock_step[2], atol=1e-6, rtol=1e-3)
        stock.step()
        fast.step()
    torch.testing.assert_close(stock.best_similarity, fast.best_similarity, atol=1e-5, rtol=1e-4)


def test_a_pez_step_is_an_adamw_step_at_the_nearest_tokens(encoder: TextEncoder) -> None:
    start = torch.tensor([encoder.tokenize("red lake")])
    pez = Pez(encoder, encoder.encode([FOX]), start)
    before = pez.vectors.clone().requires_grad_()
    tokens, similarity, gradient = pez.evaluate()
    assert tokens.tolist() == start.tolist()
    assert float(similarity) == pytest.approx(float(encoder.encode(["red lake"])[0] @ pez.targets[0]), abs=1e-5)
    reference = torch.optim.AdamW([before], lr=0.1, weight_decay=0.1)
    before.grad = gradient
    reference.step()
    pez.step()
    torch.testing.assert_close(pez.vectors, before.detach())


def test_pez_finds_a_text_that_survives(encoder: TextEncoder, boat: HardPrompt) -> None:
    readout = find_hard(encoder, boat, 4, HardConfig(method="pez", steps=30, restarts=2))
    check(encoder, readout, 4)
    assert (readout.method, readout.evaluated) == ("pez", 60)


# coordinate search


def check(encoder: TextEncoder, readout: HardReadout, k: int, text: str = BOAT) -> None:
    """Check that the readout's values are those of its text, typed again."""
    assert len(encoder.tokenize(readout.text)) == readout.tokens == k
    target = encode(encoder, text)
    assert readout.similarity == pytest.approx(float(encoder.encode([readout.text])[0] @ target), abs=1e-5)


def test_coordinate_search_finds_words_that_mean_the_prompt(encoder: TextEncoder, boat: HardPrompt) -> None:
    readout = find_hard(encoder, boat, 5, replace(QUICK, steps=6))
    check(encoder, readout, 5)
    assert readout.similarity > 0.85
    assert readout.composed is not None
    assert readout.composed > 0.85
    assert "boat" in readout.text


def test_coordinate_search_beats_its_start_and_pez(encoder: TextEncoder, vocabulary: TypeableVocabulary) -> None:
    target = encode(encoder, BOAT)
    start = random_tokens(vocabulary.ids, 2, 4, torch.Generator().manual_seed(2))
    scorer = Scorer(encoder, target)
    search = CoordinateSearch(scorer, vocabulary, start.clone(), torch.Generator().manual_seed(0))
    similarities = [search.best.similarity]
    for _ in range(3):
        search.step(0.003)
        similarities.append(search.best.similarity)
    assert similarities == sorted(similarities)
    assert similarities[0] >= float(scorer.score(start).max()) - 1e-6
    pez = Pez(encoder, target.expand(2, -1), start, vocabulary.ids)
    for _ in range(60):
        pez.step()
    assert 1 - similarities[-1] < 1 - float(pez.best_similarity.max())


def test_chains_share_the_first_round_and_then_diverge(encoder: TextEncoder, vocabulary: TypeableVocabulary) -> None:
    runs = []
    for chains in (1, 3):
        scorer, rng = Scorer(encoder, encode(encoder, BOAT)), torch.Generator().manual_seed(0)
        search = CoordinateSearch(
            scorer, vocabulary, random_tokens(vocabulary.ids, chains, 4, torch.Generator().manual_seed(1)), rng
        )
        search.step(0.003)
        assert len(search.rows.unique(dim=0)) == 1
        runs.append((scorer.evaluated - chains, search))
    (evaluated_by_one, _), (evaluated_by_three, search) = runs
    assert evaluated_by_one == evaluated_by_three
    for _ in range(3):
        search.step(0.1)
    assert len(search.rows.unique(dim=0)) > 1


def test_the_prompts_own_words_remain_if_nothing_is_better(encoder: TextEncoder) -> None:
    readout = find_hard(encoder, tokenize_prompt(encoder, "wooden boat"), 2, HardConfig(steps=1, restarts=1))
    assert readout.text == "wooden boat"
    assert readout.similarity == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("k", [1, 3, 17])  # 17 tokens have more gaps than one step tries
def test_any_number_of_tokens_works(encoder: TextEncoder, boat: HardPrompt, k: int) -> None:
    check(encoder, find_hard(encoder, boat, k, replace(QUICK, steps=1)), k)


def test_the_same_seed_finds_the_same_text(encoder: TextEncoder, boat: HardPrompt) -> None:
    first, second = (find_hard(encoder, boat, 3, replace(QUICK, restarts=2)) for _ in range(2))
    assert (first.text, first.similarity, first.evaluated) == (second.text, second.similarity, second.evaluated)


def test_the_readout_respects_words_and_block(encoder: TextEncoder, boat: HardPrompt) -> None:
    readout = find_hard(encoder, boat, 4, HardConfig(steps=2, restarts=1, words="dictionary", block=("boat", "river")))
    assert "boat" not in readout.text
    assert "river" not in readout.text
    assert all(word.isalpha() for word in readout.text.split())


def test_reports_come_each_round_and_can_stop_the_search(encoder: TextEncoder, boat: HardPrompt) -> None:
    reports: list[HardReport] = []

    def on_report(report: HardReport) -> bool:
        reports.append(report)
        return report.step == 2

    readout = find_hard(encoder, boat, 3, replace(QUICK, steps=50), on_report)
    assert [(report.step, report.steps) for report in reports] == [(1, 50), (2, 50)]
    assert reports[-1].text == readout.text
    assert reports[-1].similarity == pytest.approx(readout.similarity, abs=1e-5)


def test_the_search_ends_at_the_time_limit(encoder: TextEncoder, boat: HardPrompt) -> None:
    *_, last = iter_hard(encoder, boat, 2, replace(QUICK, steps=None, seconds=0.01))
    assert last.step == last.steps


def test_weighted_texts_get_a_hard_readout_of_their_mean(encoder: TextEncoder) -> None:
    prompt = tokenize_weighted(encoder, "both", (WeightedText("a red fox", 0.5), WeightedText("deep snow", 0.5)))
    readout = find_hard(encoder, prompt, 3, QUICK)
    target = torch.nn.functional.normalize(encoder.encode(["a red fox", "deep snow"]).mean(0), dim=-1)
    assert readout.similarity == pytest.approx(float(encoder.encode([readout.text])[0] @ target), abs=1e-5)


def test_more_tokens_than_fit_are_rejected(encoder: TextEncoder, boat: HardPrompt) -> None:
    with pytest.raises(ConfigError, match="room for 75"):
        find_hard(encoder, boat, 76)


@pytest.mark.parametrize(("causal", "pooling"), [(False, "last"), (True, "cls"), (True, "eos"), (False, "argmax")])
def test_every_kind_of_text_encoder_works(causal: bool, pooling: str) -> None:
    encoder = small_encoder(causal, pooling)
    readout = find_hard(encoder, tokenize_prompt(encoder, FOX), 3, HardConfig(steps=2, restarts=2, init="random"))
    check(encoder, readout, 3, FOX)
    check(
        encoder,
        find_hard(encoder, tokenize_prompt(encoder, FOX), 3, HardConfig(steps=5, restarts=2, method="pez")),
        3,
        FOX,
    )


def small_encoder(causal: bool, pooling: str) -> TextEncoder:
    """Return a text encoder with random weights and CLIP's tokenizer."""
    config = TextTransformerConfig(32, 2, 2, 20, 49408, 24, 64, causal=causal, pooling=pooling)  # type: ignore[arg-type]
    rng = torch.Generator().manual_seed(0)

    def weights(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=rng) * 0.2

    w, m = config.width, config.mlp_width
    shapes = [(w,), (w,), (3 * w, w), (3 * w,), (w, w), (w,), (w,), (w,), (m, w), (m,), (w, m), (w,)]
    blocks = [Block(*(weights(*shape) for shape in shapes)) for _ in range(config.layers)]
    cls = weights(w) if pooling == "cls" else None
    tower = TextTransformer(
        config, weights(49408, w), weights(21, w), blocks, torch.ones(w), weights(w), weights(w, 24), cls=cls
    )
    return TextEncoder("small", tower, Tokenizer(), SpecialTokens((49406,), (49407,), 0))


# jobs and library


def test_a_job_trains_searches_and_saves_once(encoder: TextEncoder) -> None:
    library, steps = Library(), []
    job = TrainJob(FOX, TrainConfig(tokens=2, steps=5, contexts=()), hard=HardConfig(steps=2, restarts=1))
    outcome = run_job(job, encoder, library, on_hard=lambda report: steps.append(report.step))
    assert outcome.entry is not None
    assert (outcome.failure, outcome.entry.revision, steps) == ("", 1, [1, 2])
    hard = library.open(outcome.entry.id).prompt.hard
    assert hard is not None
    check(encoder, hard, 2, FOX)


def test_a_saved_entry_gets_its_hard_readout_as_a_new_revision(encoder: TextEncoder) -> None:
    library = Library()
    saved = library.save(train(encoder, FOX, TrainConfig(tokens=2, steps=5, contexts=())))
    job = Job.from_dict(hard_readout_job(saved, HardConfig(tokens=3, steps=1, restarts=1)).as_dict())
    outcome = run_job(job, encoder, library)
    assert outcome.entry is not None
    assert (outcome.entry.id, outcome.entry.revision) == (saved.id, 2)
    hard = library.open(saved.id).prompt.hard
    assert hard is not None
    check(encoder, hard, 3, FOX)


def test_a_device_failure_loses_only_the_hard_readout(encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("device lost")

    monkeypatch.setattr("softprompt.discrete.find_hard", fail)
    outcome = run_job(TrainJob(FOX, TrainConfig(tokens=1, steps=5, contexts=()), hard=HardConfig()), encoder, Library())
    assert outcome.failure == "cpu failed: device lost"
    assert outcome.entry is not None
    assert outcome.entry.prompt.hard is None


def test_impossible_search_settings_are_rejected_before_training(encoder: TextEncoder) -> None:
    job = TrainJob(
        FOX,
        TrainConfig(tokens=2, steps=10),
        hard=HardConfig(words="dictionary", block=tuple("abcdefghijklmnopqrstuvwxyz")),
    )
    with pytest.raises(ConfigError, match="no token is left"):
        run_job(job, encoder, Library(), on_report=lambda _: pytest.fail("training started"))


def test_an_entry_without_a_prompt_cannot_get_a_hard_readout() -> None:
    saved = Library().save(a_prompt(hard_prompt="", name="from-a-file"))
    with pytest.raises(PromptError, match="from-a-file comes from a file without a prompt"):
        hard_readout_job(saved, HardConfig())


def test_a_hard_readout_round_trips_through_the_library() -> None:
    hard = HardReadout("red fox", 2, 0.9, None, "exchange", 120, 1.5)
    library = Library()
    saved = library.save(a_prompt(hard=hard))
    loaded = unpack(pack(saved), "a file").prompt
    assert loaded.hard == hard
    assert library.set_hard_readout(saved.id, replace(hard, text="fox red")).revision == 2
    assert library.set_hard_readout(saved.id, replace(hard, text="fox red")).revision == 2


@pytest.mark.parametrize(
    "change", [{"text": 3}, {"tokens": -1}, {"evaluated": 1.5}, {"similarity": "high"}, {"composed": "x"}]
)
def test_a_malformed_hard_readout_is_rejected(change: dict[str, object]) -> None:
    prompt = a_prompt(hard=HardReadout("red fox", 2, 0.9, 0.8, "exchange", 120, 1.5))
    summary = prompt.as_dict()
    tensors = (prompt.vectors, prompt.target, prompt.losses, prompt.similarities)
    SoftPrompt.from_dict(summary, *tensors)
    with pytest.raises((TypeError, ValueError, KeyError)):
        SoftPrompt.from_dict(summary | {"hard": summary["hard"] | change}, *tensors)


def test_an_entry_from_before_hard_readouts_opens() -> None:
    prompt = a_prompt()
    summary = prompt.as_dict()
    del summary["hard"]
    assert SoftPrompt.from_dict(summary, prompt.vectors, prompt.target, prompt.losses, prompt.similarities).hard is None
