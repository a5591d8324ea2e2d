"""The text encoder: rows with soft tokens, batches, hidden states, and the built-in model."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from softprompt import HardConfig, Library, TrainConfig, grade
from softprompt.batches import Defaults
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.errors import ConfigError, PromptError
from softprompt.objectives.hard_prompt import tokenize_target
from softprompt.text_states import HIDDEN_STATE_SPECS
from tests.conftest import BOAT, FOX
from tests.library_model import a_prompt


def test_similar_texts_have_similar_embeddings(encoder: TextEncoder) -> None:
    pooled = encoder.encode(
        ["a dog running on the beach", "a puppy plays in the sand by the sea", "tax law of the nineteenth century"]
    )
    similarities = pooled @ pooled.T
    assert similarities[0, 1] > 0.5
    assert similarities[0, 1] > similarities[0, 2] + 0.3
    torch.testing.assert_close(pooled.norm(dim=-1), torch.ones(3))


def test_a_row_does_not_depend_on_the_rest_of_its_batch(encoder: TextEncoder) -> None:
    batched = encoder.encode([FOX, "a cat", BOAT])
    alone = torch.cat([encoder.encode([text]) for text in (FOX, "a cat", BOAT)])
    torch.testing.assert_close(batched, alone, atol=1e-6, rtol=0)


def test_soft_tokens_take_the_places_of_their_ids(encoder: TextEncoder) -> None:
    words = encoder.tokenize("a red fox in snow")
    vectors = encoder.embed(words[1:3])
    mixed = encoder.encode_rows([[words[0], -1, -2, *words[3:]], [words[0], -2, -1, *words[3:]]], vectors)
    swapped = encoder.tokenize("a fox red in snow")
    expected = encoder.encode_rows([words, swapped])
    torch.testing.assert_close(mixed, expected, atol=1e-6, rtol=0)


def test_several_sets_of_soft_tokens_are_encoded_in_one_batch(encoder: TextEncoder) -> None:
    soft = torch.randn(4, 2, encoder.width, generator=torch.Generator().manual_seed(0)) * encoder.token_std
    batch = encoder.batch_rows([[-1, -2], [320, -1, -2, 525]])
    batched = batch.outputs(soft)
    assert batched.shape == (4, 2, encoder.config.embed_dim)
    torch.testing.assert_close(
        batched, torch.cat([batch.outputs(vectors.unsqueeze(0)) for vectors in soft]), atol=1e-5, rtol=0
    )


def test_gradients_flow_to_the_soft_tokens_only(encoder: TextEncoder) -> None:
    soft = torch.zeros(1, 1, encoder.width, requires_grad=True)
    encoder.batch_rows([[-1, 320]]).outputs(soft).sum().backward()
    assert soft.grad is not None
    assert float(soft.grad.abs().sum()) > 0
    assert not encoder.tower.table.requires_grad


def test_a_family_reads_the_states_of_a_rows_words(encoder: TextEncoder) -> None:
    rows = [encoder.tokenize(FOX), encoder.tokenize("a cat")]
    batch = encoder.batch_rows(rows)
    read = {family: batch.read_states(None, spec) for family, spec in HIDDEN_STATE_SPECS.items()}
    for output in read.values():
        torch.testing.assert_close(output.outputs, batch.outputs())
    assert read["sd1"].states.shape == (1, 2, len(rows[0]), encoder.width)
    assert read["sd1"].is_content.sum(dim=-1).tolist() == [len(row) for row in rows]
    torch.testing.assert_close(encoder.tower.final_norm(read["sdxl"].states), read["sd2"].states)
    assert not torch.allclose(read["sd2"].states, read["sd1"].states)
    assert read["flux"].states.shape == (1, 2, 1, encoder.width)
    torch.testing.assert_close(encoder.tower.project(read["flux"].states)[:, :, 0], batch.outputs())


def test_a_text_longer_than_the_context_is_rejected(encoder: TextEncoder) -> None:
    assert encoder.encode(["dog " * 75]).shape == (1, encoder.config.embed_dim)
    with pytest.raises(PromptError, match="76 tokens do not fit: mini has room for 75"):
        encoder.encode(["dog " * 76])


def test_other_weights_have_another_fingerprint(encoder: TextEncoder) -> None:
    from dataclasses import replace

    other = TextEncoder(
        "mini", replace(encoder.tower, positions=encoder.tower.positions * 1.01), encoder.tokenizer, encoder.specials
    )
    assert other.fingerprint != encoder.fingerprint


def test_the_built_in_model_loads_within_a_second_without_open_clip_or_network() -> None:
    code = """
import sys, time, socket, torch, softprompt
socket.socket.connect = None
start = time.perf_counter()
encoder = softprompt.load_encoder("mini")
print(time.perf_counter() - start, "open_clip" in sys.modules, "torchvision" in sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, open_clip, torchvision = result.stdout.split()
    assert (open_clip, torchvision) == ("False", "False")
    assert float(seconds) < 1


def test_the_built_in_model_is_small_enough_to_ship() -> None:
    from softprompt.encoders.catalog import MINI_FOLDER

    sizes = {file.name: len(file.read_bytes()) for file in MINI_FOLDER.iterdir()}
    assert set(sizes) == {"config.json", "model.safetensors", "README.md"}
    assert sum(sizes.values()) < 40_000_000


def test_a_string_is_a_list_of_one_text_not_of_letters(encoder: TextEncoder) -> None:
    assert torch.equal(encoder.encode("a fox"), encoder.encode(["a fox"]))
    vectors = torch.zeros(1, encoder.width)
    prompt = tokenize_target(encoder, "a fox", (), "refuse")
    assert grade(encoder, prompt, vectors, "{} at night") == grade(encoder, prompt, vectors, ["{} at night"])
    with pytest.raises(ConfigError, match=r"must contain \{\} exactly once"):
        grade(encoder, prompt, vectors, "at night")
    config = TrainConfig(contexts="a photo of {}", against=["a cat"], objective="contrastive")  # type: ignore[arg-type]
    assert (config.contexts, config.against) == (("a photo of {}",), ("a cat",))
    assert HardConfig(block="fox").block == ("fox",)  # type: ignore[arg-type]
    for invalid in (5, None, {"a": 1}, [5]):
        with pytest.raises(ConfigError, match=r"against is .*; it must be a string or a list of strings"):
            TrainConfig(against=invalid, objective="contrastive")  # type: ignore[arg-type]
    library = Library()
    library.save(a_prompt(name="fox"))
    assert library.tag("fox", "animal").tags == ("animal",)
    assert [entry.name for entry in library.list(tags="animal").entries] == ["fox"]
    assert library.tag("fox", ["red"], "animal").tags == ("red",)
    assert Defaults(tags="animal").tags == ("animal",)  # type: ignore[arg-type]
