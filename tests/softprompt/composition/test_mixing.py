"""Mixes: approximate (mean of vectors) until they are saved, then trained on their weighted texts."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F

from softprompt import Library, SoftPrompt, TrainConfig
from softprompt.composition.composer import compose, encode_compositions, mix_vectors, score_compositions
from softprompt.composition.sentence import parse_prompt
from softprompt.encoders.clip.rows import ALONE
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.errors import ConfigError, PromptError, PromptTooLong
from softprompt.jobs.execute import run_job
from softprompt.jobs.job import Job, TrainJob, job_from_composition
from softprompt.library.entry import Entry, pack, unpack
from softprompt.objectives.base import HardPrompt
from softprompt.objectives.hard_prompt import tokenize_prompt, tokenize_weighted
from softprompt.objectives.pooled import encode_target
from softprompt.prompts.lineage import MAX_WEIGHTED_TEXTS, Ancestor, WeightedText
from tests.conftest import BOAT, FOX
from tests.kept import train_cached
from tests.library_model import a_prompt

QUICK = TrainConfig(tokens=3, steps=100)
BOTH = (WeightedText(FOX, 0.6), WeightedText(BOAT, 0.4))


@pytest.fixture(scope="module")
def entries(encoder: TextEncoder) -> dict[str, Entry]:
    prompts = {"fox": train_cached(encoder, FOX, QUICK), "boat": train_cached(encoder, BOAT, QUICK, tokens=4)}
    return {name: Entry(f"{i:016x}", 1, prompt.named(name)) for i, (name, prompt) in enumerate(prompts.items())}


@pytest.fixture(scope="module")
def mix(encoder: TextEncoder, entries: dict[str, Entry], tmp_path_factory: pytest.TempPathFactory) -> Entry:
    """[fox*.6 + boat*.4], trained and saved."""
    parsed = parse_prompt("[fox*.6 + boat*.4]", entries.__getitem__)
    job = job_from_composition(parsed, config=QUICK, name="mix")
    entry = run_job(
        Job.from_dict(json.loads(json.dumps(job.as_dict()))), encoder, Library(tmp_path_factory.mktemp("mix"))
    ).entry
    assert entry is not None
    return entry


# approximate mixes


def test_similarities_follow_the_weights_monotonically(encoder: TextEncoder, entries: dict[str, Entry]) -> None:
    texts = [f"[fox*{10 - n} + boat*{n}]" for n in range(1, 10)]
    a, b = (
        encode_compositions(encoder, compose(encoder, [*texts], entries.__getitem__)) @ encoder.encode([FOX, BOAT]).T
    ).T.tolist()
    assert all(later < earlier for earlier, later in pairwise(a))
    assert all(later > earlier for earlier, later in pairwise(b))
    composed = compose(encoder, texts, entries.__getitem__)
    assert (
        min(
            score.fidelity or 0
            for score in score_compositions(encoder, composed, encode_compositions(encoder, composed))
        )
        > 0.95
    )


def test_shorter_soft_prompts_are_interpolated() -> None:
    two, three = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [1.0], [5.0]])
    assert mix_vectors([two, three], [0.5, 0.5]).flatten().tolist() == [0.5, 1.0, 3.5]
    assert mix_vectors([torch.tensor([[4.0]]), three], [0.25, 0.75]).flatten().tolist() == [1.75, 1.75, 4.75]


# trained mixes


def test_target_is_the_weighted_mean_of_unit_embeddings(encoder: TextEncoder) -> None:
    prompt = tokenize_weighted(encoder, "both", BOTH)
    for context in (ALONE, "a photo of {}"):
        target = F.normalize(encode_target(encoder, prompt, [context]), dim=-1)[0]
        a, b = encoder.encode([context.format(FOX), context.format(BOAT)])
        assert torch.allclose(target, F.normalize(0.6 * a + 0.4 * b, dim=-1), atol=1e-5)
    assert prompt.tokens == len(encoder.tokenizer.encode(BOAT))


def test_trained_mix_is_closer_than_the_mean_of_vectors(
    encoder: TextEncoder, entries: dict[str, Entry], mix: Entry
) -> None:
    known = entries | {"mix": mix}
    composed = compose(encoder, ["[fox*.6 + boat*.4]", "[mix]"], known.__getitem__)
    near, trained = score_compositions(encoder, composed, encode_compositions(encoder, composed))
    assert (near.mixed, trained.mixed) == ("near", "trained")
    assert near.reference_texts == trained.reference_texts
    assert near.fidelity is not None
    assert trained.fidelity is not None
    assert trained.fidelity == pytest.approx(mix.prompt.similarity, abs=1e-4)
    assert trained.fidelity > max(0.995, near.fidelity)
    assert mix.prompt.composition is not None
    assert mix.prompt.composition.mean > 0.98  # graded against the weighted texts in contexts too


def test_saved_mix_records_its_texts_and_ancestors(mix: Entry, entries: dict[str, Entry]) -> None:
    prompt = unpack(pack(mix), "mix").prompt
    assert prompt.hard_prompt == f"{FOX}*.6 + {BOAT}*.4"
    assert [(meaning.text, meaning.share) for meaning in prompt.meanings] == [(FOX, 0.6), (BOAT, 0.4)]
    assert [(ancestor.relation, ancestor.id, ancestor.name, ancestor.weight) for ancestor in prompt.ancestry] == [
        ("mixed", entries["fox"].id, "fox", 0.6),
        ("mixed", entries["boat"].id, "boat", 0.4),
    ]


def test_nested_mixes_multiply_their_weights(entries: dict[str, Entry], mix: Entry) -> None:
    known = entries | {"mix": mix}
    parsed = parse_prompt("[mix + fox] at night", known.__getitem__)
    shares = {reference.text: reference.share for reference in parsed.reference_texts()}
    assert shares == pytest.approx({f"{FOX} at night": 0.8, f"{BOAT} at night": 0.2})
    assert parsed.display_text == f"(({FOX}*.6 + {BOAT}*.4)*.5 + {FOX}*.5) at night"
    assert parse_prompt("[mix], 4k", known.__getitem__).display_text == f"({FOX}*.6 + {BOAT}*.4), 4k"
    both = parse_prompt("[mix] and [fox*.5 + boat*.5]", known.__getitem__)
    assert sorted(reference.share for reference in both.reference_texts()) == pytest.approx([0.2, 0.2, 0.3, 0.3])


def test_number_of_reference_texts_is_limited(encoder: TextEncoder, mix: Entry) -> None:
    find: Callable[[str], Entry] = lambda _: mix  # noqa: E731
    assert len(parse_prompt("[mix] " * 6, find).reference_texts()) == MAX_WEIGHTED_TEXTS
    with pytest.raises(PromptError, match="128 sentences"):
        parse_prompt("[mix] " * 7, find).reference_texts()
    with pytest.raises(PromptError, match="sentences, one for each combination"):
        parse_prompt("[mix]" * 5000, find).reference_texts()


# jobs


def test_job_of_a_composition_without_mixes_has_one_prompt(entries: dict[str, Entry]) -> None:
    job = job_from_composition(parse_prompt("[fox] next to [boat]", entries.__getitem__), name="pair")
    assert (job.prompt, job.meanings, job.name) == (f"{FOX} next to {BOAT}", (), "pair")
    assert [(ancestor.relation, ancestor.name) for ancestor in job.ancestry] == [
        ("composed", "fox"),
        ("composed", "boat"),
    ]


def test_unknown_meaning_cannot_be_trained_on(entries: dict[str, Entry]) -> None:
    unknown = Entry("1", 1, replace(entries["fox"].prompt, hard_prompt=""))
    with pytest.raises(PromptError, match="comes from a file without a prompt"):
        job_from_composition(parse_prompt("[x] at night", lambda _: unknown))
    for text in ("[fox:1] at night", "[fox:1] [fox:3]", "[boat:1-3]"):
        with pytest.raises(PromptError, match=r"only some soft tokens of (fox|boat)"):
            job_from_composition(parse_prompt(text, entries.__getitem__))
    assert job_from_composition(parse_prompt("[fox:1][fox:2-3]", entries.__getitem__)).prompt == FOX


def test_jobs_without_mix_fields_are_read() -> None:
    values = TrainJob(FOX).as_dict()
    del values["meanings"], values["ancestry"]
    assert Job.from_dict(values) == TrainJob(FOX)
    ancestor = Ancestor("mixed", "1", "a", FOX, "mini", "2", 0.5)
    job = TrainJob("both", meanings=BOTH, ancestry=(ancestor,))
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
def test_invalid_job_is_rejected(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="not a valid job"):
        Job.from_dict(TrainJob(FOX).as_dict() | changes)


def test_too_many_or_too_long_texts_are_rejected(encoder: TextEncoder) -> None:
    with pytest.raises(PromptError, match="at most 64"):
        TrainJob("many", meanings=(WeightedText("a", 0.01),) * 65)
    with pytest.raises(PromptError, match="200,000"):
        TrainJob("long", meanings=(WeightedText("a" * 100_001, 0.5),) * 2)
    with pytest.raises(PromptTooLong, match="has room for 75"):
        tokenize_weighted(encoder, "both", (WeightedText("fox " * 80, 0.5), WeightedText(BOAT, 0.5)))


def test_long_text_in_a_mix_is_cut_or_chunked(encoder: TextEncoder) -> None:
    long = (WeightedText("fox " * 80, 0.5), WeightedText(BOAT, 0.5))
    cut = tokenize_weighted(encoder, "both", long, "cut")
    assert cut.dropped == "fox fox fox fox fox"
    chunked = tokenize_weighted(encoder, "both", long, "chunk")
    assert [len(variant.chunks) for _, variant in chunked.variants] == [2, 1]
    whole = tokenize_prompt(encoder, "fox " * 80, "chunk")
    assert isinstance(whole, HardPrompt)
    a, b = (
        F.normalize(encode_target(encoder, prompt, [ALONE]), dim=-1)[0]
        for prompt in (whole, tokenize_prompt(encoder, BOAT))
    )
    target = F.normalize(encode_target(encoder, chunked, [ALONE]), dim=-1)[0]
    assert torch.allclose(target, F.normalize(a + b, dim=-1), atol=1e-5)


def test_entries_without_mix_fields_mean_their_prompt() -> None:
    entry = Entry("0" * 16, 1, a_prompt())
    values = entry.prompt.as_dict()
    del values["meanings"]
    prompt = entry.prompt
    read = SoftPrompt.from_dict(values, prompt.vectors, prompt.target, prompt.losses, prompt.similarities)
    assert read.reference_texts == (WeightedText(prompt.hard_prompt, 1.0),)
    assert replace(read, hard_prompt="").reference_texts == ()
