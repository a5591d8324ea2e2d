"""Mixes: the mean of vectors until they are saved, and then trained on what their hard prompts mean together."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F

from softprompt import Library, TrainConfig
from softprompt.composition.composer import compose, figures, mixed_vectors, pooled
from softprompt.composition.sentence import read_sentence
from softprompt.encoders.clip.rows import ALONE
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.errors import ConfigError, PromptError, PromptTooLong
from softprompt.jobs.execute import run_job
from softprompt.jobs.job import Job, TrainJob, job_from_composition
from softprompt.library.entry import Entry, pack, unpack
from softprompt.objectives.base import HardPrompt
from softprompt.objectives.hard_prompt import tokenize_prompt, tokenize_weighted
from softprompt.objectives.pooled import encode_targets_in
from softprompt.prompts.lineage import MAX_WEIGHTED_TEXTS, Ancestor, WeightedText
from softprompt.prompts.serialization import from_dict, to_dict
from tests.conftest import BOAT, FOX
from tests.kept import trained
from tests.library_model import a_prompt

QUICK = TrainConfig(tokens=3, steps=100)
BOTH = (WeightedText(FOX, 0.6), WeightedText(BOAT, 0.4))


@pytest.fixture(scope="module")
def entries(encoder: TextEncoder) -> dict[str, Entry]:
    made = {"fox": trained(encoder, FOX, QUICK), "boat": trained(encoder, BOAT, QUICK, tokens=4)}
    return {name: Entry(f"{i:016x}", 1, prompt.named(name)) for i, (name, prompt) in enumerate(made.items())}


@pytest.fixture(scope="module")
def mix(encoder: TextEncoder, entries: dict[str, Entry], tmp_path_factory: pytest.TempPathFactory) -> Entry:
    """[fox*.6 + boat*.4], trained and saved."""
    sentence = read_sentence("[fox*.6 + boat*.4]", entries.__getitem__)
    job = job_from_composition(sentence, config=QUICK, name="mix")
    entry = run_job(
        Job.from_dict(json.loads(json.dumps(job.as_dict()))), encoder, Library(tmp_path_factory.mktemp("mix"))
    ).entry
    assert entry is not None
    return entry


# the mean of vectors


def test_similarity_moves_with_the_shares_without_a_step_back(encoder: TextEncoder, entries: dict[str, Entry]) -> None:
    texts = [f"[fox*{10 - n} + boat*{n}]" for n in range(1, 10)]
    a, b = (pooled(encoder, compose(encoder, [*texts], entries.__getitem__)) @ encoder.encode([FOX, BOAT]).T).T.tolist()
    assert all(later < earlier for earlier, later in pairwise(a))
    assert all(later > earlier for earlier, later in pairwise(b))
    made = compose(encoder, texts, entries.__getitem__)
    assert min(one.fidelity or 0 for one in figures(encoder, made, pooled(encoder, made))) > 0.95


def test_fewer_tokens_are_stretched_over_as_many_places() -> None:
    two, three = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [1.0], [5.0]])
    assert mixed_vectors([two, three], [0.5, 0.5]).flatten().tolist() == [0.5, 1.0, 3.5]
    assert mixed_vectors([torch.tensor([[4.0]]), three], [0.25, 0.75]).flatten().tolist() == [1.75, 1.75, 4.75]


# trained


def test_the_target_is_the_weighted_mean_of_the_directions(encoder: TextEncoder) -> None:
    prompt = tokenize_weighted(encoder, "both", BOTH)
    for context in (ALONE, "a photo of {}"):
        ours = F.normalize(encode_targets_in(encoder, prompt, [context]), dim=-1)[0]
        a, b = encoder.encode([context.format(FOX), context.format(BOAT)])
        assert torch.allclose(ours, F.normalize(0.6 * a + 0.4 * b, dim=-1), atol=1e-5)
    assert prompt.tokens == len(encoder.tokenizer.encode(BOAT))


def test_a_saved_mix_is_nearer_than_the_mean_of_vectors(
    encoder: TextEncoder, entries: dict[str, Entry], mix: Entry
) -> None:
    known = entries | {"mix": mix}
    made = compose(encoder, ["[fox*.6 + boat*.4]", "[mix]"], known.__getitem__)
    near, trained = figures(encoder, made, pooled(encoder, made))
    assert (near.mixed, trained.mixed) == ("near", "trained")
    assert near.written_out == trained.written_out
    assert near.fidelity is not None
    assert trained.fidelity is not None
    assert trained.fidelity == pytest.approx(mix.prompt.similarity, abs=1e-4)
    assert trained.fidelity > max(0.995, near.fidelity)
    assert mix.prompt.composition is not None
    assert mix.prompt.composition.mean > 0.98  # graded against the weighted meaning in contexts too


def test_a_saved_mix_says_what_it_means_and_is_made_from(mix: Entry, entries: dict[str, Entry]) -> None:
    made = unpack(pack(mix), "mix").prompt
    assert made.hard_prompt == f"{FOX}*.6 + {BOAT}*.4"
    assert [(one.text, one.share) for one in made.meanings] == [(FOX, 0.6), (BOAT, 0.4)]
    assert [(one.relation, one.id, one.name, one.weight) for one in made.ancestry] == [
        ("mixed", entries["fox"].id, "fox", 0.6),
        ("mixed", entries["boat"].id, "boat", 0.4),
    ]


def test_a_mix_in_a_mix_keeps_every_share(entries: dict[str, Entry], mix: Entry) -> None:
    known = entries | {"mix": mix}
    sentence = read_sentence("[mix + fox] at night", known.__getitem__)
    shares = {one.text: one.share for one in sentence.reference_texts()}
    assert shares == pytest.approx({f"{FOX} at night": 0.8, f"{BOAT} at night": 0.2})
    assert sentence.readable == f"(({FOX}*.6 + {BOAT}*.4)*.5 + {FOX}*.5) at night"
    assert read_sentence("[mix], 4k", known.__getitem__).readable == f"({FOX}*.6 + {BOAT}*.4), 4k"
    both = read_sentence("[mix] and [fox*.5 + boat*.5]", known.__getitem__)
    assert sorted(one.share for one in both.reference_texts()) == pytest.approx([0.2, 0.2, 0.3, 0.3])


def test_meanings_do_not_grow_without_bound(encoder: TextEncoder, mix: Entry) -> None:
    find: Callable[[str], Entry] = lambda _: mix  # noqa: E731
    assert len(read_sentence("[mix] " * 6, find).reference_texts()) == MAX_WEIGHTED_TEXTS
    with pytest.raises(PromptError, match="128 sentences together"):
        read_sentence("[mix] " * 7, find).reference_texts()
    with pytest.raises(PromptError, match="sentences together"):
        read_sentence("[mix]" * 5000, find).reference_texts()


# jobs


def test_a_job_of_a_composition_without_mixes_is_one_of_the_sentence(entries: dict[str, Entry]) -> None:
    job = job_from_composition(read_sentence("[fox] next to [boat]", entries.__getitem__), name="pair")
    assert (job.prompt, job.meanings, job.name) == (f"{FOX} next to {BOAT}", (), "pair")
    assert [(one.relation, one.name) for one in job.ancestry] == [("composed", "fox"), ("composed", "boat")]


def test_what_has_no_known_meaning_is_not_trained_on(entries: dict[str, Entry]) -> None:
    unknown = Entry("1", 1, replace(entries["fox"].prompt, hard_prompt=""))
    with pytest.raises(PromptError, match="is not known"):
        job_from_composition(read_sentence("[x] at night", lambda _: unknown))
    for text in ("[fox:1] at night", "[fox:1] [fox:3]", "[boat:1-3]"):
        with pytest.raises(PromptError, match=r"not all soft tokens of (fox|boat)"):
            job_from_composition(read_sentence(text, entries.__getitem__))
    assert job_from_composition(read_sentence("[fox:1][fox:2-3]", entries.__getitem__)).prompt == FOX


def test_jobs_from_before_there_were_mixes_are_read() -> None:
    values = TrainJob(FOX).as_dict()
    del values["meanings"], values["ancestry"]
    assert Job.from_dict(values) == TrainJob(FOX)
    lineage = Ancestor("mixed", "1", "a", FOX, "mini", "2", 0.5)
    job = TrainJob("both", meanings=BOTH, ancestry=(lineage,))
    assert Job.from_dict(json.loads(json.dumps(job.as_dict()))) == job


@pytest.mark.parametrize(
    "changes",
    [
        {"meanings": [{"text": FOX, "share": 0.0}]},
        {"meanings": [{"text": FOX, "share": float("nan")}]},
        {"meanings": [{"text": FOX}]},
        {"meanings": 3},
        {"ancestry": [{"id": "1"}]},
    ],
)
def test_a_job_of_another_kind_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="no training job"):
        Job.from_dict(TrainJob(FOX).as_dict() | changes)


def test_too_many_or_too_long_meanings_are_refused(encoder: TextEncoder) -> None:
    with pytest.raises(PromptError, match="at most 64"):
        TrainJob("many", meanings=(WeightedText("a", 0.01),) * 65)
    with pytest.raises(PromptError, match="200,000"):
        TrainJob("long", meanings=(WeightedText("a" * 100_001, 0.5),) * 2)
    with pytest.raises(PromptTooLong, match="takes 75"):
        tokenize_weighted(encoder, "both", (WeightedText("fox " * 80, 0.5), WeightedText(BOAT, 0.5)))


def test_a_long_text_in_a_mix_is_cut_or_chunked_as_alone(encoder: TextEncoder) -> None:
    long = (WeightedText("fox " * 80, 0.5), WeightedText(BOAT, 0.5))
    cut = tokenize_weighted(encoder, "both", long, "cut")
    assert cut.dropped == "fox fox fox fox fox"
    chunked = tokenize_weighted(encoder, "both", long, "chunk")
    assert [len(one.pieces) for _, one in chunked.variants] == [2, 1]
    whole = tokenize_prompt(encoder, "fox " * 80, "chunk")
    assert isinstance(whole, HardPrompt)
    a, b = (
        F.normalize(encode_targets_in(encoder, one, [ALONE]), dim=-1)[0]
        for one in (whole, tokenize_prompt(encoder, BOAT))
    )
    ours = F.normalize(encode_targets_in(encoder, chunked, [ALONE]), dim=-1)[0]
    assert torch.allclose(ours, F.normalize(a + b, dim=-1), atol=1e-5)


def test_entries_from_before_there_were_mixes_mean_their_hard_prompt() -> None:
    entry = Entry("0" * 16, 1, a_prompt())
    values = to_dict(entry.prompt)
    del values["meanings"]
    prompt = entry.prompt
    read = from_dict(values, prompt.vectors, prompt.target, prompt.losses, prompt.similarities)
    assert read.reference_texts == (WeightedText(prompt.hard_prompt, 1.0),)
    assert replace(read, hard_prompt="").reference_texts == ()
