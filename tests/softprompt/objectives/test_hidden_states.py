"""Hidden-state similarity: the states that diffusion models read, their matching, and training on them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from softprompt.config import TrainConfig
from softprompt.encoders.base import SpecialTokens
from softprompt.encoders.clip.rows import ALONE, soft_rows
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.encoders.clip.tokenizer import Tokenizer
from softprompt.encoders.clip.transformer import Block, Pooling, TextTransformer, TextTransformerConfig
from softprompt.errors import ConfigError
from softprompt.evaluation.hidden_states import hidden_similarities
from softprompt.objectives.base import HardPrompt
from softprompt.objectives.hard_prompt import tokenize_prompt
from softprompt.objectives.hidden_states import HiddenStatesReference, best_match
from softprompt.prompts.soft_prompt import SoftPrompt
from softprompt.text_states import ALL_FAMILIES, HIDDEN_STATE_SPECS, ImageProgram, families_for, is_stand_in
from softprompt.training.task import TrainingState
from softprompt.training.trainer import train
from tests.conftest import BOAT, FOX
from tests.worker_process import same_bits

CONTEXTS = ("{} in winter", "a photo of {}")


def train_quickly(encoder: TextEncoder, **settings: Any) -> SoftPrompt:
    return train(encoder, FOX, **{"tokens": 3, "steps": 40, "contexts": (), **settings})


def random_encoder(width: int = 32, layers: int = 2, pooling: Pooling = "eos", causal: bool = True) -> TextEncoder:
    """Return a small text encoder with random weights. The ids 998 and 999 are the start and end tokens."""
    rng = torch.Generator().manual_seed(0)

    def random_tensor(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng) / shape[-1] ** 0.5

    w, m = width, 2 * width
    shapes = ((w,), (w,), (3 * w, w), (3 * w,), (w, w), (w,), (w,), (w,), (m, w), (m,), (w, m), (w,))
    config = TextTransformerConfig(w, 2, layers, 20, 1000, 16, m, causal=causal, pooling=pooling)
    tower = TextTransformer(
        config,
        table=random_tensor(1000, w),
        positions=random_tensor(21 if pooling == "cls" else 20, w),
        blocks=[Block(*(random_tensor(*shape) for shape in shapes)) for _ in range(layers)],
        norm_weight=1 + random_tensor(w),
        norm_bias=random_tensor(w),
        projection=random_tensor(w, 16),
        cls=random_tensor(w) if pooling == "cls" else None,
    )
    return TextEncoder("random", tower, Tokenizer(), SpecialTokens((998,), (999,)))


# ---- matching


# torch clamps norms to at least 1e-12; a tower's states are never that short
numbers = st.floats(-4, 4, width=32).map(lambda x: x if abs(x) > 1e-6 else 0.0)
states = st.integers(1, 6).flatmap(
    lambda n: st.lists(st.lists(numbers, min_size=3, max_size=3), min_size=n, max_size=n)
)


def matched(a: Tensor, b: Tensor) -> float:
    return float(best_match(a, b, torch.ones(len(a), dtype=torch.bool), torch.ones(len(b), dtype=torch.bool)))


@settings(max_examples=60)
@given(states, states, st.randoms(use_true_random=False))
def test_a_match_ignores_order_repetition_and_norms_and_is_symmetric(
    a_values: list[Any], b_values: list[Any], random: Any
) -> None:
    a, b = torch.tensor(a_values), torch.tensor(b_values)
    value = matched(a, b)
    assert -1.001 <= value <= 1.001
    order = random.sample(range(len(a)), len(a))
    assert matched(a[order], b) == pytest.approx(value, abs=1e-5)
    assert matched(b, a) == pytest.approx(value, abs=1e-5)
    assert matched(a * 0.5, b) == pytest.approx(value, abs=1e-4)  # the norm does not matter
    assert matched(torch.cat([a, a]), b) == pytest.approx(value, abs=1e-5)


@settings(max_examples=60)
@given(states, states)
def test_uncounted_positions_change_nothing(a_values: list[Any], b_values: list[Any]) -> None:
    a, b = torch.tensor(a_values), torch.tensor(b_values)
    more = torch.cat([a, b, torch.ones(2, 3)])  # uncounted, although b's own states would match best
    counts = torch.arange(len(more)) < len(a)
    alone = best_match(more, b, counts, torch.ones(len(b), dtype=torch.bool))
    assert float(alone) == pytest.approx(matched(a, b), abs=1e-5)


def test_a_prompt_matches_itself_with_1_and_a_part_of_itself_with_less() -> None:
    whole = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    assert matched(whole, whole) == pytest.approx(1)
    assert 0.5 < matched(whole[:2], whole) < 1  # all of the part is in the whole, but not vice versa


def test_ties_share_the_gradient_equally() -> None:
    tied_states = torch.tensor([[1.0, 0.5], [1.0, 0.5]], requires_grad=True)
    best_match(
        tied_states, torch.tensor([[0.0, 1.0]]), torch.ones(2, dtype=torch.bool), torch.ones(1, dtype=torch.bool)
    ).backward()
    assert tied_states.grad is not None
    assert torch.equal(tied_states.grad[0], tied_states.grad[1])


# ---- the states that are read


def to_hugging_face(encoder: TextEncoder) -> Any:
    """Return a CLIPTextModel with the weights of a tower."""
    from transformers import CLIPTextConfig, CLIPTextModel

    tower, c = encoder.tower, encoder.config
    model = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=c.vocabulary,
            hidden_size=c.width,
            intermediate_size=c.mlp_width,
            num_hidden_layers=c.layers,
            num_attention_heads=c.heads,
            max_position_embeddings=c.context,
            hidden_act=c.activation,
            bos_token_id=998,
            eos_token_id=999,
            pad_token_id=999,
        )
    ).eval()
    weights = {
        "embeddings.token_embedding.weight": tower.table,
        "embeddings.position_embedding.weight": tower.positions,
        "final_layer_norm.weight": tower.norm_weight,
        "final_layer_norm.bias": tower.norm_bias,
    }
    for i, block in enumerate(tower.blocks):
        named = {
            "layer_norm1": (block.norm1_weight, block.norm1_bias),
            "layer_norm2": (block.norm2_weight, block.norm2_bias),
            "self_attn.out_proj": (block.out_weight, block.out_bias),
            "mlp.fc1": (block.fc_weight, block.fc_bias),
            "mlp.fc2": (block.proj_weight, block.proj_bias),
        }
        thirds = zip("qkv", block.qkv_weight.chunk(3), block.qkv_bias.chunk(3), strict=True)
        named |= {f"self_attn.{letter}_proj": (weight, bias) for letter, weight, bias in thirds}
        for name, (weight, bias) in named.items():
            weights |= {f"encoder.layers.{i}.{name}.weight": weight, f"encoder.layers.{i}.{name}.bias": bias}
    expected = set(model.state_dict())
    prefix = "text_model." if any(name.startswith("text_model.") for name in expected) else ""
    left, unknown = model.load_state_dict({prefix + name: value for name, value in weights.items()}, strict=False)
    assert [name for name in left if "position_ids" not in name] == unknown == []
    return model


def read_by_hugging_face(model: Any, row: list[int], family: ImageProgram, pad: int) -> list[Tensor]:
    """Return the states of a row's words as a family's programs read them."""
    full = [998, *row, 999]
    out = model(torch.tensor([full + [pad] * (20 - len(full))]), output_hidden_states=True)
    norm = getattr(model, "text_model", model).final_layer_norm
    states = {
        "sd1": lambda: out.last_hidden_state[0],
        "sd2": lambda: norm(out.hidden_states[-2])[0],
        "sdxl": lambda: out.hidden_states[-2][0],
        "flux": lambda: out.pooler_output,
    }[family]()
    return list(states if family == "flux" else states[1 : 1 + len(row)])


def naive_similarity(a: list[Tensor], b: list[Tensor]) -> float:
    def mean_best(states: list[Tensor], others: list[Tensor]) -> float:
        return sum(max(float(F.cosine_similarity(x, y, dim=0)) for y in others) for x in states) / len(states)

    return (mean_best(a, b) + mean_best(b, a)) / 2


@pytest.mark.parametrize("layers", [1, 3])
@torch.no_grad()
def test_similarities_equal_a_naive_computation_with_transformers(layers: int) -> None:
    encoder = random_encoder(layers=layers)
    model = to_hugging_face(encoder)
    for words, soft in (([5, 6, 7, 8, 9, 10, 11], [900, 901]), ([40], [900, 901, 902]), (list(range(50, 68)), [903])):
        prompt = HardPrompt("words", (tuple(words),))
        similarities = hidden_similarities(encoder, prompt, encoder.embed(soft))
        for pad in (999, 0):  # padding does not change the states of the words
            for family in ALL_FAMILIES:
                expected = [read_by_hugging_face(model, row, family, pad) for row in (soft, words)]
                assert similarities[family] == pytest.approx(naive_similarity(*expected), abs=1e-5), family


@pytest.mark.parametrize("pooling", ["cls", "first", "last"])
@torch.no_grad()
def test_flux_reads_the_end_token_of_towers_with_other_pooling(pooling: Pooling) -> None:
    encoder = random_encoder(pooling=pooling)
    c = encoder.config
    end_pooled_tower = replace(
        encoder.tower, config=replace(c, pooling="eos"), cls=None, positions=encoder.tower.positions[: c.context]
    )
    model = to_hugging_face(TextEncoder("the same", end_pooled_tower, encoder.tokenizer, encoder.specials))
    words, soft = [5, 6, 7, 8, 9, 10, 11], [900, 901]
    expected = [read_by_hugging_face(model, row, "flux", 0) for row in (soft, words)]
    similarities = hidden_similarities(encoder, HardPrompt("words", (tuple(words),)), encoder.embed(soft))
    assert similarities["flux"] == pytest.approx(naive_similarity(*expected), abs=1e-5)


def test_flux_is_omitted_for_a_tokenizer_without_end_token() -> None:
    encoder = random_encoder(pooling="last")
    encoder_without_end = TextEncoder("random", encoder.tower, encoder.tokenizer, SpecialTokens((998,), ()))
    prompt = HardPrompt("words", ((5, 6, 7, 8),))
    assert set(hidden_similarities(encoder_without_end, prompt, encoder_without_end.embed([900]))) == {
        "sd1",
        "sd2",
        "sdxl",
    }
    with pytest.raises(ConfigError, match="family flux cannot be used with"):
        HiddenStatesReference(encoder_without_end, prompt, [ALONE], "flux")


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_the_prompts_own_words_have_similarity_1_and_another_prompts_less(
    encoder: TextEncoder, family: ImageProgram
) -> None:
    prompt = tokenize_prompt(encoder, FOX)
    own = hidden_similarities(encoder, prompt, encoder.embed(prompt.chunks[0]))[family]
    other = hidden_similarities(encoder, prompt, encoder.embed(encoder.tokenize(BOAT)))[family]
    assert own == pytest.approx(1, abs=1e-5)
    assert other < 0.9


@pytest.mark.parametrize(
    ("pooling", "causal"),
    [("eos", True), ("argmax", True), ("first", False), ("last", True), ("last", False), ("cls", True)],
)
def test_every_kind_of_tower_is_read_in_batches_with_gradients(pooling: Pooling, causal: bool) -> None:
    encoder = random_encoder(pooling=pooling, causal=causal)
    prompt = HardPrompt("words", ((5, 6, 7, 8),))
    batch = encoder.batch_rows([[-1, -2], [7, -2, 8, -1, 9]])
    soft = torch.randn(3, 2, 32, generator=torch.Generator().manual_seed(1), requires_grad=True)
    for spec in HIDDEN_STATE_SPECS.values():
        batched = batch.read_states(soft, spec)
        torch.testing.assert_close(batched.outputs, batch.outputs(soft), atol=1e-5, rtol=0)
        alone = [batch.read_states(vectors.unsqueeze(0), spec) for vectors in soft]
        torch.testing.assert_close(batched.states, torch.cat([output.states for output in alone]), atol=1e-5, rtol=0)
        short = encoder.batch_rows([[-1, -2]]).read_states(soft, spec)  # without a longer row in the batch
        length = short.states.shape[2]
        torch.testing.assert_close(batched.states[:, :1, :length], short.states, atol=1e-5, rtol=0)
        (gradient,) = torch.autograd.grad(batched.states.square().sum(), soft)
        assert bool((gradient.abs().sum(dim=-1) > 0).all())
    assert hidden_similarities(encoder, prompt, encoder.embed([5, 6, 7, 8])) == pytest.approx(
        dict.fromkeys(ALL_FAMILIES, 1), abs=1e-5
    )


def test_words_of_the_context_are_matched_too(encoder: TextEncoder) -> None:
    prompt = tokenize_prompt(encoder, FOX)
    target = HiddenStatesReference(encoder, prompt, [ALONE, *CONTEXTS], "sd1")
    batch = encoder.batch_rows(soft_rows(encoder, [ALONE, *CONTEXTS], 1))
    noise = torch.randn(1, 1, encoder.width, generator=torch.Generator().manual_seed(0)) * encoder.token_std
    alone, _, after_words = target.similarities(batch.read_states(noise, target.spec))[0].tolist()
    assert after_words > alone + 0.1  # "a photo of" is the same in both


@pytest.mark.parametrize(
    ("shape", "families"),
    [
        ((768, 12), ("sd1", "sdxl", "flux")),
        ((1024, 24), ("sd2",)),
        ((1280, 32), ("sdxl",)),
        ((256, 4), ALL_FAMILIES),
        ((768, 24), ALL_FAMILIES),  # the width of CLIP-L with other layers
    ],
)
def test_an_encoder_is_measured_for_the_families_that_read_its_shape(
    shape: tuple[int, int], families: tuple[ImageProgram, ...]
) -> None:
    assert families_for(*shape) == families


@pytest.mark.parametrize(
    ("model", "stands_in"),
    [
        ("ViT-L-14-quickgelu/openai", False),
        ("ViT-H-14/laion2b_s32b_b79k", False),
        ("ViT-bigG-14/laion2b_s39b_b160k", False),
        ("ViT-L-14/laion2b_s32b_b82k", True),  # CLIP-L's shape with other weights
        ("ViT-B-16-SigLIP/webli", True),
        ("coca_ViT-L-14/laion2b_s13b_b90k", True),
        ("local-dir:/models/clip-l", True),  # unknown weights
        ("mini", True),
        ("", True),
    ],
)
def test_every_model_but_the_programs_own_is_a_stand_in(model: str, stands_in: bool) -> None:
    assert is_stand_in(model) == stands_in


# ---- training


@pytest.fixture(scope="module")
def pooled(encoder: TextEncoder) -> SoftPrompt:
    """A soft prompt trained on pooled similarity alone."""
    return train_quickly(encoder)


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_the_objective_improves_its_familys_similarity(
    encoder: TextEncoder, pooled: SoftPrompt, family: ImageProgram
) -> None:
    prompt = train_quickly(encoder, objective="hidden", family=family)
    assert prompt.hidden[family] == pytest.approx(1 - prompt.loss, abs=1e-5)
    assert prompt.losses[-1] < prompt.losses[0] / 3
    if family != "flux":  # whose state is nearly the pooled embedding
        assert prompt.hidden[family] > pooled.hidden[family] + 0.01


def test_the_mixed_objective_improves_both_similarities(encoder: TextEncoder, pooled: SoftPrompt) -> None:
    hidden = train_quickly(encoder, objective="hidden")
    mixed = train_quickly(encoder, objective="mixed", hidden_share=0.25)
    assert mixed.loss == pytest.approx(0.25 * (1 - mixed.hidden["sd1"]) + 0.75 * (1 - mixed.similarity), abs=1e-5)
    assert mixed.hidden["sd1"] > pooled.hidden["sd1"] + 0.01
    assert mixed.similarity > hidden.similarity


def test_similarity_is_always_the_pooled_similarity(encoder: TextEncoder) -> None:
    reports = []
    prompt = train(
        encoder,
        FOX,
        TrainConfig(tokens=3, steps=40, contexts=(), objective="hidden", stop_at=0.8),
        on_report=reports.append,
    )
    assert prompt.stopped == "stop_at"
    assert reports[-1].best_similarity == pytest.approx(prompt.similarity, abs=1e-5)
    assert prompt.hidden["sd1"] != pytest.approx(prompt.similarity, abs=1e-3)


@pytest.mark.parametrize("objective", ["hidden", "mixed"])
def test_the_same_seed_gives_identical_bits_even_from_a_checkpoint(encoder: TextEncoder, objective: str) -> None:
    settings: dict[str, Any] = {
        "objective": objective,
        "family": "sd2",
        "contexts": CONTEXTS,
        "restarts": 2,
        "steps": 6,
    }
    whole = train_quickly(encoder, **settings)
    states: list[TrainingState] = []
    again = train_quickly(encoder, interval=2, on_report=lambda report: states.append(report.state()), **settings)
    assert same_bits(again, whole)
    assert len(states) == 3
    for state in states:
        assert same_bits(train_quickly(encoder, resume=state, **settings), whole)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"family": "sd3", "objective": "hidden"}, "family is 'sd3'; it must be one of: sd1, sd2, sdxl, flux"),
        ({"family": "sd2"}, "family is sd2, but the objective is cosine: only hidden and mixed"),
        ({"objective": "hidden", "hidden_share": 0.6}, "'hidden_share' is set, but the objective is hidden"),
        ({"objective": "mixed", "hidden_share": 0}, "hidden_share is 0; it must be greater than 0 and at most 1"),
        ({"objective": "mixed", "hidden_share": 1.2}, "hidden_share is 1.2; it must be"),
        ({"objective": "mixed", "hidden_share": True}, "hidden_share is True; it must be"),
        ({"objective": "hidden", "against": ("a wolf",)}, "only the contrastive objective uses it"),
        ({"objective": ["hidden"]}, "objective is"),
    ],
)
def test_invalid_settings_are_rejected(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        TrainConfig(**settings)


def test_a_family_that_does_not_read_the_model_is_rejected() -> None:
    encoder = random_encoder()
    encoder.config = replace(encoder.config, width=768, layers=12)  # CLIP-L's shape
    prompt = HardPrompt("words", ((5, 6, 7),))
    with pytest.raises(
        ConfigError,
        match=r"family sd2 cannot be used with random \(width 768, 12 layers\)\. Supported families: sd1, sdxl, flux",
    ):
        HiddenStatesReference(encoder, prompt, [ALONE], "sd2")
    assert set(hidden_similarities(encoder, prompt, encoder.embed([3]))) == {"sd1", "sdxl", "flux"}


def test_a_prompt_in_chunks_has_no_hidden_state_similarity(encoder: TextEncoder) -> None:
    long = " ".join([FOX] * 8)
    for objective in ("hidden", "mixed"):
        with pytest.raises(ConfigError, match=r"the prompt consists of 2 texts .* hidden states need a single text"):
            train(encoder, long, tokens=2, steps=2, long="chunk", objective=objective)
    assert train(encoder, long, tokens=2, steps=2, contexts=(), long="chunk").hidden == {}
    assert train(encoder, long, tokens=2, steps=2, contexts=(), long="cut", objective="hidden").hidden


def test_hidden_state_similarities_are_saved(encoder: TextEncoder) -> None:
    prompt = train_quickly(encoder, steps=2)
    again = SoftPrompt.from_dict(prompt.as_dict(), prompt.vectors, prompt.target, prompt.losses, prompt.similarities)
    assert again.hidden == prompt.hidden
    assert set(prompt.hidden) == set(ALL_FAMILIES)
    assert replace(prompt, hidden={}).as_dict()["hidden"] == {}
