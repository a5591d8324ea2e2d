"""Hard readouts: real tokens that survive being typed, found by exchange or by PEZ."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from softprompt import Library, train
from softprompt.config import HardConfig, TrainConfig
from softprompt.discrete import HardReport, find_hard, iter_hard
from softprompt.discrete.coordinate_search import CoordinateSearch
from softprompt.discrete.pez import Pez
from softprompt.discrete.scoring import Scorer
from softprompt.discrete.search import random_tokens
from softprompt.discrete.vocabulary import TypeableVocabulary, typeable
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
from softprompt.prompts.serialization import from_dict, to_dict
from tests.conftest import BOAT, FOX
from tests.library_model import a_prompt

QUICK = HardConfig(steps=3, restarts=1, init="random")
pytestmark = pytest.mark.usefixtures("kept_typeable")


@pytest.fixture(scope="module")
def typist(encoder: TextEncoder) -> TypeableVocabulary:
    return TypeableVocabulary(encoder)


@pytest.fixture(scope="module")
def boat(encoder: TextEncoder) -> HardPrompt:
    return tokenize_prompt(encoder, BOAT)


def target_of(encoder: TextEncoder, text: str) -> torch.Tensor:
    return encoder.encode([text])[0]


# what survives being typed


@given(st.data())
def test_what_survives_is_itself_when_typed(
    encoder: TextEncoder, typist: TypeableVocabulary, data: st.DataObject
) -> None:
    row = data.draw(st.lists(st.integers(0, len(typist.ids) - 1), min_size=1, max_size=12))
    ids = typist.ids[row].tolist()
    again = encoder.tokenizer.encode(typist.text(ids))
    assert typist.survives(ids) == (again == ids)


@given(st.lists(st.integers(0, 49405), min_size=1, max_size=8))
def test_of_any_tokens_it_is_known_whether_they_survive(
    encoder: TextEncoder, typist: TypeableVocabulary, ids: list[int]
) -> None:
    assert typist.survives(ids) == (encoder.tokenizer.encode(encoder.tokenizer.decode(ids).strip()) == ids)


def test_every_token_that_may_be_used_survives_alone(encoder: TextEncoder) -> None:
    texts = typeable(encoder)
    assert len(texts) > 30_000
    assert all(encoder.tokenizer.decode([i]).strip() == texts[i] for i in list(texts)[::50])
    assert all(encoder.tokenizer.encode(texts[i]) == [i] for i in list(texts)[::50])


@pytest.mark.parametrize(("words", "least"), [("ascii", 30_000), ("dictionary", 30_000)])
def test_words_say_which_tokens_may_be_used(encoder: TextEncoder, words: str, least: int) -> None:
    typist = TypeableVocabulary(encoder, words)  # type: ignore[arg-type]
    pieces = [typist.text([i]) for i in typist.ids.tolist()]
    assert least < len(pieces) < len(TypeableVocabulary(encoder).ids)
    assert all(piece.isascii() for piece in pieces)
    assert words == "ascii" or all(piece.isalpha() and (len(piece) > 1 or piece in "ai") for piece in pieces)


def test_what_is_blocked_stands_in_no_token_and_in_no_text(encoder: TextEncoder) -> None:
    typist = TypeableVocabulary(encoder, block=("BOAT", "red  Fox", ""))
    assert not any("boat" in typist.text([i]) for i in typist.ids.tolist())
    assert typist.survives(encoder.tokenize("a fox is red"))
    assert not typist.survives(encoder.tokenize("a red fox"))
    assert not typist.survives(encoder.tokenize("two boats"))


def test_settings_that_leave_no_token_are_refused(encoder: TextEncoder) -> None:
    with pytest.raises(ConfigError, match="no token is left"):
        TypeableVocabulary(encoder, "dictionary", tuple("abcdefghijklmnopqrstuvwxyz"))


# scores


def test_scores_with_a_shared_beginning_are_those_of_whole_texts(
    encoder: TextEncoder, typist: TypeableVocabulary
) -> None:
    rng = torch.Generator().manual_seed(0)
    rows = random_tokens(typist.ids, 15, 6, rng).view(3, 5, 6)
    rows[:, :, :4] = rows[:, :1, :4]
    scorer = Scorer(encoder, target_of(encoder, FOX))
    wanted = encoder.encode_rows(rows.flatten(0, 1).tolist()) @ scorer.target
    for shared in (0, 2, 4):
        torch.testing.assert_close(scorer.scores(rows, shared), wanted, atol=1e-5, rtol=0)
    assert scorer.evaluated == 45


# PEZ


def test_stock_and_fast_pez_take_the_same_steps(encoder: TextEncoder, typist: TypeableVocabulary) -> None:
    rng = torch.Generator().manual_seed(1)
    start = random_tokens(encoder.ordinary_ids, 2, 4, rng)
    targets = encoder.encode([FOX, BOAT])
    stock, fast = Pez(encoder, targets, start, stock=True), Pez(encoder, targets, start)
    for _ in range(3):
        ours, theirs = fast.look(), stock.look()
        assert torch.equal(ours[0], theirs[0])
        torch.testing.assert_close(ours[1], theirs[1], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(ours[2], theirs[2], atol=1e-6, rtol=1e-3)
        stock.step()
        fast.step()
    torch.testing.assert_close(stock.best_similarity, fast.best_similarity, atol=1e-5, rtol=1e-4)


def test_a_pez_step_is_adamws_at_the_nearest_tokens(encoder: TextEncoder) -> None:
    start = torch.tensor([encoder.tokenize("red lake")])
    pez = Pez(encoder, encoder.encode([FOX]), start)
    before = pez.vectors.clone().requires_grad_()
    tokens, similarity, gradient = pez.look()
    assert tokens.tolist() == start.tolist()
    assert float(similarity) == pytest.approx(float(encoder.encode(["red lake"])[0] @ pez.targets[0]), abs=1e-5)
    reference = torch.optim.AdamW([before], lr=0.1, weight_decay=0.1)
    before.grad = gradient
    reference.step()
    pez.step()
    torch.testing.assert_close(pez.vectors, before.detach())


def test_pez_ends_with_a_text_that_survives(encoder: TextEncoder, boat: HardPrompt) -> None:
    found = find_hard(encoder, boat, 4, HardConfig(method="pez", steps=30, restarts=2))
    check(encoder, found, 4)
    assert (found.method, found.evaluated) == ("pez", 60)


# exchange


def check(encoder: TextEncoder, found: HardReadout, k: int, text: str = BOAT) -> None:
    """Its figures are those of its text, typed again."""
    assert len(encoder.tokenize(found.text)) == found.tokens == k
    target = target_of(encoder, text)
    assert found.similarity == pytest.approx(float(encoder.encode([found.text])[0] @ target), abs=1e-5)


def test_it_finds_words_that_mean_the_prompt(encoder: TextEncoder, boat: HardPrompt) -> None:
    found = find_hard(encoder, boat, 5, replace(QUICK, steps=6))
    check(encoder, found, 5)
    assert found.similarity > 0.85
    assert found.composed is not None
    assert found.composed > 0.85
    assert "boat" in found.text


def test_it_is_never_worse_than_its_start_and_better_than_pez_with_as_many_texts(
    encoder: TextEncoder, typist: TypeableVocabulary
) -> None:
    target = target_of(encoder, BOAT)
    start = random_tokens(typist.ids, 2, 4, torch.Generator().manual_seed(2))
    scorer = Scorer(encoder, target)
    exchange = CoordinateSearch(scorer, typist, start.clone(), torch.Generator().manual_seed(0))
    reached = [exchange.best.similarity]
    for _ in range(3):
        exchange.step(0.003)
        reached.append(exchange.best.similarity)
    assert reached == sorted(reached)
    assert reached[0] >= float(scorer.scores(start).max()) - 1e-6
    pez = Pez(encoder, target.expand(2, -1), start, typist.ids)
    for _ in range(60):
        pez.step()
    assert 1 - reached[-1] < 1 - float(pez.best_similarity.max())


def test_several_chains_are_built_once_and_then_part(encoder: TextEncoder, typist: TypeableVocabulary) -> None:
    made = []
    for chains in (1, 3):
        scorer, rng = Scorer(encoder, target_of(encoder, BOAT)), torch.Generator().manual_seed(0)
        exchange = CoordinateSearch(
            scorer, typist, random_tokens(typist.ids, chains, 4, torch.Generator().manual_seed(1)), rng
        )
        exchange.step(0.003)
        assert len(exchange.rows.unique(dim=0)) == 1
        made.append((scorer.evaluated - chains, exchange))
    (one, _), (three, exchange) = made
    assert one == three
    for _ in range(3):
        exchange.step(0.1)
    assert len(exchange.rows.unique(dim=0)) > 1


def test_a_start_from_the_prompts_words_is_kept_where_nothing_is_better(encoder: TextEncoder) -> None:
    found = find_hard(encoder, tokenize_prompt(encoder, "wooden boat"), 2, HardConfig(steps=1, restarts=1))
    assert found.text == "wooden boat"
    assert found.similarity == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("k", [1, 3, 17])  # 17 gaps are more than are looked at for one token
def test_any_number_of_tokens(encoder: TextEncoder, boat: HardPrompt, k: int) -> None:
    check(encoder, find_hard(encoder, boat, k, replace(QUICK, steps=1)), k)


def test_the_same_seed_finds_the_same_text(encoder: TextEncoder, boat: HardPrompt) -> None:
    first, again = (find_hard(encoder, boat, 3, replace(QUICK, restarts=2)) for _ in range(2))
    assert (first.text, first.similarity, first.evaluated) == (again.text, again.similarity, again.evaluated)


def test_settings_hold_in_what_is_found(encoder: TextEncoder, boat: HardPrompt) -> None:
    found = find_hard(encoder, boat, 4, HardConfig(steps=2, restarts=1, words="dictionary", block=("boat", "river")))
    assert "boat" not in found.text
    assert "river" not in found.text
    assert all(word.isalpha() for word in found.text.split())


def test_reports_come_each_round_and_true_ends_it(encoder: TextEncoder, boat: HardPrompt) -> None:
    seen: list[HardReport] = []

    def on_report(report: HardReport) -> bool:
        seen.append(report)
        return report.step == 2

    found = find_hard(encoder, boat, 3, replace(QUICK, steps=50), on_report)
    assert [(report.step, report.steps) for report in seen] == [(1, 50), (2, 50)]
    assert seen[-1].text == found.text
    assert seen[-1].similarity == pytest.approx(found.similarity, abs=1e-5)


def test_it_ends_when_the_time_is_over(encoder: TextEncoder, boat: HardPrompt) -> None:
    *_, last = iter_hard(encoder, boat, 2, replace(QUICK, steps=None, seconds=0.01))
    assert last.step == last.steps


def test_the_mean_of_several_texts_is_looked_for_too(encoder: TextEncoder) -> None:
    mixed = tokenize_weighted(encoder, "both", (WeightedText("a red fox", 0.5), WeightedText("deep snow", 0.5)))
    found = find_hard(encoder, mixed, 3, QUICK)
    target = torch.nn.functional.normalize(encoder.encode(["a red fox", "deep snow"]).mean(0), dim=-1)
    assert found.similarity == pytest.approx(float(encoder.encode([found.text])[0] @ target), abs=1e-5)


def test_more_tokens_than_there_is_room_for_are_refused(encoder: TextEncoder, boat: HardPrompt) -> None:
    with pytest.raises(ConfigError, match="room for 1 to 75"):
        find_hard(encoder, boat, 76)


@pytest.mark.parametrize(("causal", "pooling"), [(False, "last"), (True, "cls"), (True, "eos"), (False, "argmax")])
def test_other_towers_work_as_well(causal: bool, pooling: str) -> None:
    encoder = small_encoder(causal, pooling)
    found = find_hard(encoder, tokenize_prompt(encoder, FOX), 3, HardConfig(steps=2, restarts=2, init="random"))
    check(encoder, found, 3, FOX)
    check(
        encoder,
        find_hard(encoder, tokenize_prompt(encoder, FOX), 3, HardConfig(steps=5, restarts=2, method="pez")),
        3,
        FOX,
    )


def small_encoder(causal: bool, pooling: str) -> TextEncoder:
    """A tower of random weights with CLIP's tokenizer."""
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


# in the library


def test_a_job_trains_and_looks_and_saves_once(encoder: TextEncoder) -> None:
    library, seen = Library(), []
    job = TrainJob(FOX, TrainConfig(tokens=2, steps=5, contexts=()), hard=HardConfig(steps=2, restarts=1))
    outcome = run_job(job, encoder, library, on_hard=lambda report: seen.append(report.step))
    assert outcome.entry is not None
    assert (outcome.failure, outcome.entry.revision, seen) == ("", 1, [1, 2])
    hard = library.open(outcome.entry.id).prompt.hard
    assert hard is not None
    check(encoder, hard, 2, FOX)


def test_a_saved_one_gets_its_hard_readout_as_a_new_revision(encoder: TextEncoder) -> None:
    library = Library()
    saved = library.save(train(encoder, FOX, TrainConfig(tokens=2, steps=5, contexts=())))
    job = Job.from_dict(hard_readout_job(saved, HardConfig(tokens=3, steps=1, restarts=1)).as_dict())
    outcome = run_job(job, encoder, library)
    assert outcome.entry is not None
    assert (outcome.entry.id, outcome.entry.revision) == (saved.id, 2)
    hard = library.open(saved.id).prompt.hard
    assert hard is not None
    check(encoder, hard, 3, FOX)


def test_a_failing_device_costs_the_hard_readout_only(encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("device lost")

    monkeypatch.setattr("softprompt.discrete.find_hard", fails)
    outcome = run_job(TrainJob(FOX, TrainConfig(tokens=1, steps=5, contexts=()), hard=HardConfig()), encoder, Library())
    assert outcome.failure == "cpu failed: device lost"
    assert outcome.entry is not None
    assert outcome.entry.prompt.hard is None


def test_what_cannot_be_found_is_said_before_the_training(encoder: TextEncoder) -> None:
    job = TrainJob(
        FOX,
        TrainConfig(tokens=2, steps=10),
        hard=HardConfig(words="dictionary", block=tuple("abcdefghijklmnopqrstuvwxyz")),
    )
    with pytest.raises(ConfigError, match="no token is left"):
        run_job(job, encoder, Library(), on_report=lambda _: pytest.fail("it trained"))


def test_a_meaning_that_is_not_known_cannot_be_looked_for() -> None:
    saved = Library().save(a_prompt(hard_prompt="", name="from-a-file"))
    with pytest.raises(PromptError, match="what from-a-file means is not known"):
        hard_readout_job(saved, HardConfig())


def test_an_entry_keeps_its_hard_readout() -> None:
    hard = HardReadout("red fox", 2, 0.9, None, "exchange", 120, 1.5)
    library = Library()
    saved = library.save(a_prompt(hard=hard))
    again = unpack(pack(saved), "a file").prompt
    assert again.hard == hard
    assert library.harden(saved.id, replace(hard, text="fox red")).revision == 2
    assert library.harden(saved.id, replace(hard, text="fox red")).revision == 2


@pytest.mark.parametrize(
    "change", [{"text": 3}, {"tokens": -1}, {"evaluated": 1.5}, {"similarity": "high"}, {"composed": "x"}]
)
def test_a_hostile_hard_readout_is_refused(change: dict[str, object]) -> None:
    made = a_prompt(hard=HardReadout("red fox", 2, 0.9, 0.8, "exchange", 120, 1.5))
    summary = to_dict(made)
    tensors = (made.vectors, made.target, made.losses, made.similarities)
    from_dict(summary, *tensors)
    with pytest.raises((TypeError, ValueError, KeyError)):
        from_dict(summary | {"hard": summary["hard"] | change}, *tensors)


def test_an_entry_of_before_there_were_any_opens() -> None:
    made = a_prompt()
    summary = to_dict(made)
    del summary["hard"]
    assert from_dict(summary, made.vectors, made.target, made.losses, made.similarities).hard is None
