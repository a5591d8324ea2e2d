"""Hidden-state similarity: what a family of diffusion models reads, how two prompts are matched in it, and training towards it."""

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
from softprompt.objectives.hidden_states import HiddenTarget, best_match
from softprompt.prompts.serialization import from_dict, to_dict
from softprompt.prompts.soft_prompt import SoftPrompt
from softprompt.text_states import ALL, READS, ImageProgram, families_of, is_stand_in
from softprompt.training.task import TrainingState
from softprompt.training.trainer import train
from tests.conftest import BOAT, FOX
from tests.worker_process import same_bits

CONTEXTS = ("{} in winter", "a photo of {}")


def quick(encoder: TextEncoder, **settings: Any) -> SoftPrompt:
    return train(encoder, FOX, **{"tokens": 3, "steps": 40, "contexts": (), **settings})


def random_encoder(width: int = 32, layers: int = 2, pooling: Pooling = "eos", causal: bool = True) -> TextEncoder:
    """A small text encoder with random weights; ids 998 and 999 are start and end."""
    rng = torch.Generator().manual_seed(0)

    def some(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng) / shape[-1] ** 0.5

    w, m = width, 2 * width
    shapes = ((w,), (w,), (3 * w, w), (3 * w,), (w, w), (w,), (w,), (w,), (m, w), (m,), (w, m), (w,))
    config = TextTransformerConfig(w, 2, layers, 20, 1000, 16, m, causal=causal, pooling=pooling)
    tower = TextTransformer(
        config,
        table=some(1000, w),
        positions=some(21 if pooling == "cls" else 20, w),
        blocks=[Block(*(some(*shape) for shape in shapes)) for _ in range(layers)],
        norm_weight=1 + some(w),
        norm_bias=some(w),
        projection=some(w, 16),
        cls=some(w) if pooling == "cls" else None,
    )
    return TextEncoder("random", tower, Tokenizer(), SpecialTokens((998,), (999,)))


# ---- matching


# no state of a tower is shorter than what a cosine divides by at least: torch takes 1e-12 for the length of such a vector
figures = st.floats(-4, 4, width=32).map(lambda x: x if abs(x) > 1e-6 else 0.0)
states = st.integers(1, 6).flatmap(
    lambda n: st.lists(st.lists(figures, min_size=3, max_size=3), min_size=n, max_size=n)
)


def matched(a: Tensor, b: Tensor) -> float:
    return float(best_match(a, b, torch.ones(len(a), dtype=torch.bool), torch.ones(len(b), dtype=torch.bool)))


@settings(max_examples=60)
@given(states, states, st.randoms(use_true_random=False))
def test_a_match_knows_no_order_no_length_and_no_direction(one: list[Any], other: list[Any], random: Any) -> None:
    a, b = torch.tensor(one), torch.tensor(other)
    value = matched(a, b)
    assert -1.001 <= value <= 1.001
    order = random.sample(range(len(a)), len(a))
    assert matched(a[order], b) == pytest.approx(value, abs=1e-5)
    assert matched(b, a) == pytest.approx(value, abs=1e-5)
    assert matched(a * 0.5, b) == pytest.approx(value, abs=1e-4)  # scaled, they point the same way
    assert matched(torch.cat([a, a]), b) == pytest.approx(value, abs=1e-5)


@settings(max_examples=60)
@given(states, states)
def test_positions_that_do_not_count_change_nothing(one: list[Any], other: list[Any]) -> None:
    a, b = torch.tensor(one), torch.tensor(other)
    more = torch.cat([a, b, torch.ones(2, 3)])  # b's own states among the pads would match best of all
    counts = torch.arange(len(more)) < len(a)
    alone = best_match(more, b, counts, torch.ones(len(b), dtype=torch.bool))
    assert float(alone) == pytest.approx(matched(a, b), abs=1e-5)


def test_a_prompt_is_one_with_itself_and_less_with_a_part_of_itself() -> None:
    whole = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    assert matched(whole, whole) == pytest.approx(1)
    assert 0.5 < matched(whole[:2], whole) < 1  # the part finds itself in the whole, not the other way round


def test_the_gradient_is_shared_among_equals() -> None:
    ours = torch.tensor([[1.0, 0.5], [1.0, 0.5]], requires_grad=True)
    best_match(
        ours, torch.tensor([[0.0, 1.0]]), torch.ones(2, dtype=torch.bool), torch.ones(1, dtype=torch.bool)
    ).backward()
    assert ours.grad is not None
    assert torch.equal(ours.grad[0], ours.grad[1])


# ---- what is read


def hugging_face(encoder: TextEncoder) -> Any:
    """CLIPTextModel with the weights of a tower."""
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
    """The vectors of a row's words, as the families' programs take them from the model."""
    full = [998, *row, 999]
    out = model(torch.tensor([full + [pad] * (20 - len(full))]), output_hidden_states=True)
    norm = getattr(model, "text_model", model).final_layer_norm
    taken = {
        "sd1": lambda: out.last_hidden_state[0],
        "sd2": lambda: norm(out.hidden_states[-2])[0],
        "sdxl": lambda: out.hidden_states[-2][0],
        "flux": lambda: out.pooler_output,
    }[family]()
    return list(taken if family == "flux" else taken[1 : 1 + len(row)])


def naive_similarity(ours: list[Tensor], theirs: list[Tensor]) -> float:
    def side(some: list[Tensor], others: list[Tensor]) -> float:
        return sum(max(float(F.cosine_similarity(a, b, dim=0)) for b in others) for a in some) / len(some)

    return (side(ours, theirs) + side(theirs, ours)) / 2


@pytest.mark.parametrize("layers", [1, 3])
@torch.no_grad()
def test_it_is_what_a_naive_reading_of_transformers_gives(layers: int) -> None:
    encoder = random_encoder(layers=layers)
    model = hugging_face(encoder)
    for words, soft in (([5, 6, 7, 8, 9, 10, 11], [900, 901]), ([40], [900, 901, 902]), (list(range(50, 68)), [903])):
        prompt = HardPrompt("words", (tuple(words),))
        ours = hidden_similarities(encoder, prompt, encoder.embed(soft))
        for pad in (999, 0):  # what stands behind the end changes nothing that is read of the words
            for family in ALL:
                theirs = [read_by_hugging_face(model, row, family, pad) for row in (soft, words)]
                assert ours[family] == pytest.approx(naive_similarity(*theirs), abs=1e-5), family


@pytest.mark.parametrize("pooling", ["cls", "first", "last"])
@torch.no_grad()
def test_flux_reads_the_end_token_of_towers_that_are_pooled_elsewhere(pooling: Pooling) -> None:
    encoder = random_encoder(pooling=pooling)
    c = encoder.config
    at_the_end = replace(
        encoder.tower, config=replace(c, pooling="eos"), cls=None, positions=encoder.tower.positions[: c.context]
    )
    model = hugging_face(TextEncoder("the same", at_the_end, encoder.tokenizer, encoder.specials))
    words, soft = [5, 6, 7, 8, 9, 10, 11], [900, 901]
    theirs = [read_by_hugging_face(model, row, "flux", 0) for row in (soft, words)]
    ours = hidden_similarities(encoder, HardPrompt("words", (tuple(words),)), encoder.embed(soft))
    assert ours["flux"] == pytest.approx(naive_similarity(*theirs), abs=1e-5)


def test_flux_is_left_out_where_a_tokenizer_writes_no_end_token() -> None:
    encoder = random_encoder(pooling="last")
    endless = TextEncoder("random", encoder.tower, encoder.tokenizer, SpecialTokens((998,), ()))
    prompt = HardPrompt("words", ((5, 6, 7, 8),))
    assert set(hidden_similarities(endless, prompt, endless.embed([900]))) == {"sd1", "sd2", "sdxl"}
    with pytest.raises(ConfigError, match="family is flux"):
        HiddenTarget(endless, prompt, [ALONE], "flux")


@pytest.mark.parametrize("family", ALL)
def test_the_prompts_own_words_are_at_1_and_another_prompts_below(encoder: TextEncoder, family: ImageProgram) -> None:
    prompt = tokenize_prompt(encoder, FOX)
    own = hidden_similarities(encoder, prompt, encoder.embed(prompt.pieces[0]))[family]
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
    frame = encoder.batch_rows([[-1, -2], [7, -2, 8, -1, 9]])
    soft = torch.randn(3, 2, 32, generator=torch.Generator().manual_seed(1), requires_grad=True)
    for reads in READS.values():
        together = frame.read(soft, reads)
        torch.testing.assert_close(together.outputs, frame.outputs(soft), atol=1e-5, rtol=0)
        alone = [frame.read(one.unsqueeze(0), reads) for one in soft]
        torch.testing.assert_close(together.states, torch.cat([one.states for one in alone]), atol=1e-5, rtol=0)
        short = encoder.batch_rows([[-1, -2]]).read(soft, reads)  # without the longer row beside it
        seen = short.states.shape[2]
        torch.testing.assert_close(together.states[:, :1, :seen], short.states, atol=1e-5, rtol=0)
        (gradient,) = torch.autograd.grad(together.states.square().sum(), soft)
        assert bool((gradient.abs().sum(dim=-1) > 0).all())
    assert hidden_similarities(encoder, prompt, encoder.embed([5, 6, 7, 8])) == pytest.approx(
        dict.fromkeys(ALL, 1), abs=1e-5
    )


def test_words_of_the_context_are_matched_as_well(encoder: TextEncoder) -> None:
    prompt = tokenize_prompt(encoder, FOX)
    target = HiddenTarget(encoder, prompt, [ALONE, *CONTEXTS], "sd1")
    frame = encoder.batch_rows(soft_rows(encoder, [ALONE, *CONTEXTS], 1))
    noise = torch.randn(1, 1, encoder.width, generator=torch.Generator().manual_seed(0)) * encoder.token_std
    alone, _, after_words = target.similarities(frame.read(noise, target.reads))[0].tolist()
    assert after_words > alone + 0.1  # "a photo of" stands before both and is the same there


@pytest.mark.parametrize(
    ("shape", "families"),
    [
        ((768, 12), ("sd1", "sdxl", "flux")),
        ((1024, 24), ("sd2",)),
        ((1280, 32), ("sdxl",)),
        ((256, 4), ALL),
        ((768, 24), ALL),  # a width alone makes no CLIP-L
    ],
)
def test_each_encoder_is_measured_for_those_that_read_one_of_its_shape(
    shape: tuple[int, int], families: tuple[ImageProgram, ...]
) -> None:
    assert families_of(*shape) == families


@pytest.mark.parametrize(
    ("model", "stands_in"),
    [
        ("ViT-L-14-quickgelu/openai", False),
        ("ViT-H-14/laion2b_s32b_b79k", False),
        ("ViT-bigG-14/laion2b_s39b_b160k", False),
        ("ViT-L-14/laion2b_s32b_b82k", True),  # CLIP-L's shape, and other weights
        ("ViT-B-16-SigLIP/webli", True),
        ("coca_ViT-L-14/laion2b_s13b_b90k", True),
        ("local-dir:/models/clip-l", True),  # whatever is in it
        ("mini", True),
        ("", True),
    ],
)
def test_only_the_very_weights_that_the_programs_have_do_not_stand_in(model: str, stands_in: bool) -> None:
    assert is_stand_in(model) == stands_in


# ---- training towards it


@pytest.fixture(scope="module")
def pooled(encoder: TextEncoder) -> SoftPrompt:
    """What the pooled similarity alone trains to."""
    return quick(encoder)


@pytest.mark.parametrize("family", ALL)
def test_the_objective_lowers_what_it_names(encoder: TextEncoder, pooled: SoftPrompt, family: ImageProgram) -> None:
    made = quick(encoder, objective="hidden", family=family)
    assert made.hidden[family] == pytest.approx(1 - made.loss, abs=1e-5)
    assert made.losses[-1] < made.losses[0] / 3
    if family != "flux":  # which reads nearly what is pooled
        assert made.hidden[family] > pooled.hidden[family] + 0.01


def test_mixed_is_near_in_both(encoder: TextEncoder, pooled: SoftPrompt) -> None:
    hidden = quick(encoder, objective="hidden")
    mixed = quick(encoder, objective="mixed", hidden_share=0.25)
    assert mixed.loss == pytest.approx(0.25 * (1 - mixed.hidden["sd1"]) + 0.75 * (1 - mixed.similarity), abs=1e-5)
    assert mixed.hidden["sd1"] > pooled.hidden["sd1"] + 0.01
    assert mixed.similarity > hidden.similarity


def test_similarity_always_means_the_pooled_one(encoder: TextEncoder) -> None:
    reports = []
    made = train(
        encoder,
        FOX,
        TrainConfig(tokens=3, steps=40, contexts=(), objective="hidden", stop_at=0.8),
        on_report=reports.append,
    )
    assert made.stopped == "stop_at"
    assert reports[-1].best_similarity == pytest.approx(made.similarity, abs=1e-5)
    assert made.hidden["sd1"] != pytest.approx(made.similarity, abs=1e-3)


@pytest.mark.parametrize("objective", ["hidden", "mixed"])
def test_the_same_seed_gives_the_same_bits_also_from_a_checkpoint(encoder: TextEncoder, objective: str) -> None:
    settings: dict[str, Any] = {
        "objective": objective,
        "family": "sd2",
        "contexts": CONTEXTS,
        "restarts": 2,
        "steps": 6,
    }
    whole = quick(encoder, **settings)
    states: list[TrainingState] = []
    again = quick(encoder, interval=2, on_report=lambda report: states.append(report.state()), **settings)
    assert same_bits(again, whole)
    assert len(states) == 3
    for state in states:
        assert same_bits(quick(encoder, resume=state, **settings), whole)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"family": "sd3", "objective": "hidden"}, "family is 'sd3'; it can be sd1, sd2, sdxl, flux"),
        ({"family": "sd2"}, "family is sd2, but the objective is cosine: only hidden and mixed"),
        ({"objective": "hidden", "hidden_share": 0.6}, "hidden_share is set, but the objective is hidden"),
        ({"objective": "mixed", "hidden_share": 0}, "hidden_share is 0; it must be over 0 and at most 1"),
        ({"objective": "mixed", "hidden_share": 1.2}, "hidden_share is 1.2; it must be"),
        ({"objective": "mixed", "hidden_share": True}, "hidden_share is True; it must be"),
        ({"objective": "hidden", "against": ("a wolf",)}, "only the contrastive objective uses it"),
        ({"objective": ["hidden"]}, "objective is"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said.replace("(", r"\(")):
        TrainConfig(**settings)


def test_a_family_that_does_not_read_the_model_is_refused() -> None:
    encoder = random_encoder()
    encoder.config = replace(encoder.config, width=768, layers=12)  # CLIP-L's shape
    prompt = HardPrompt("words", ((5, 6, 7),))
    with pytest.raises(
        ConfigError,
        match=r"family is sd2, which does not read random \(width 768, 12 layers\); what reads one of that shape: sd1, sdxl, flux",
    ):
        HiddenTarget(encoder, prompt, [ALONE], "sd2")
    assert set(hidden_similarities(encoder, prompt, encoder.embed([3]))) == {"sd1", "sdxl", "flux"}


def test_a_prompt_in_pieces_has_no_one_sequence_of_states(encoder: TextEncoder) -> None:
    long = " ".join([FOX] * 8)
    for objective in ("hidden", "mixed"):
        with pytest.raises(ConfigError, match=r"the prompt is 2 texts .* have no one sequence of hidden states"):
            train(encoder, long, tokens=2, steps=2, long="chunk", objective=objective)
    assert train(encoder, long, tokens=2, steps=2, contexts=(), long="chunk").hidden == {}
    assert train(encoder, long, tokens=2, steps=2, contexts=(), long="cut", objective="hidden").hidden


def test_the_summary_keeps_it(encoder: TextEncoder) -> None:
    made = quick(encoder, steps=2)
    again = from_dict(to_dict(made), made.vectors, made.target, made.losses, made.similarities)
    assert again.hidden == made.hidden
    assert set(made.hidden) == set(ALL)
    assert to_dict(replace(made, hidden={}))["hidden"] == {}
