"""The text encoder: rows of ids and soft tokens, frames, hidden states, and the built-in model's own shape."""

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
from softprompt.text_states import READS
from tests.conftest import BOAT, FOX
from tests.library_model import a_prompt


def test_it_knows_what_words_mean(encoder: TextEncoder) -> None:
    pooled = encoder.encode(
        ["a dog running on the beach", "a puppy plays in the sand by the sea", "tax law of the nineteenth century"]
    )
    likeness = pooled @ pooled.T
    assert likeness[0, 1] > 0.5
    assert likeness[0, 1] > likeness[0, 2] + 0.3
    torch.testing.assert_close(pooled.norm(dim=-1), torch.ones(3))


def test_a_row_is_encoded_alike_in_any_company(encoder: TextEncoder) -> None:
    together = encoder.encode([FOX, "a cat", BOAT])
    alone = torch.cat([encoder.encode([text]) for text in (FOX, "a cat", BOAT)])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)


def test_soft_tokens_stand_where_their_numbers_stand(encoder: TextEncoder) -> None:
    words = encoder.tokenize("a red fox in snow")
    vectors = encoder.embed(words[1:3])
    mixed = encoder.encode_rows([[words[0], -1, -2, *words[3:]], [words[0], -2, -1, *words[3:]]], vectors)
    swapped = encoder.tokenize("a fox red in snow")
    expected = encoder.encode_rows([words, swapped])
    torch.testing.assert_close(mixed, expected, atol=1e-6, rtol=0)


def test_sets_of_soft_tokens_are_encoded_at_once(encoder: TextEncoder) -> None:
    soft = torch.randn(4, 2, encoder.width, generator=torch.Generator().manual_seed(0)) * encoder.token_std
    frame = encoder.batch_rows([[-1, -2], [320, -1, -2, 525]])
    together = frame.outputs(soft)
    assert together.shape == (4, 2, encoder.config.embed_dim)
    torch.testing.assert_close(
        together, torch.cat([frame.outputs(one.unsqueeze(0)) for one in soft]), atol=1e-5, rtol=0
    )


def test_gradients_flow_to_the_soft_tokens_only(encoder: TextEncoder) -> None:
    soft = torch.zeros(1, 1, encoder.width, requires_grad=True)
    encoder.batch_rows([[-1, 320]]).outputs(soft).sum().backward()
    assert soft.grad is not None
    assert float(soft.grad.abs().sum()) > 0
    assert not encoder.tower.table.requires_grad


def test_a_family_reads_the_states_of_a_rows_own_words(encoder: TextEncoder) -> None:
    rows = [encoder.tokenize(FOX), encoder.tokenize("a cat")]
    frame = encoder.batch_rows(rows)
    read = {family: frame.read(None, reads) for family, reads in READS.items()}
    for one in read.values():
        torch.testing.assert_close(one.outputs, frame.outputs())
    assert read["sd1"].states.shape == (1, 2, len(rows[0]), encoder.width)
    assert read["sd1"].words.sum(dim=-1).tolist() == [len(row) for row in rows]
    torch.testing.assert_close(encoder.tower.final_norm(read["sdxl"].states), read["sd2"].states)
    assert not torch.allclose(read["sd2"].states, read["sd1"].states)
    assert read["flux"].states.shape == (1, 2, 1, encoder.width)
    torch.testing.assert_close(encoder.tower.project(read["flux"].states)[:, :, 0], frame.outputs())


def test_a_text_longer_than_the_context_is_refused(encoder: TextEncoder) -> None:
    assert encoder.encode(["dog " * 75]).shape == (1, encoder.config.embed_dim)
    with pytest.raises(PromptError, match="76 tokens do not fit: mini takes at most 75"):
        encoder.encode(["dog " * 76])


def test_other_weights_have_another_fingerprint(encoder: TextEncoder) -> None:
    from dataclasses import replace

    other = TextEncoder(
        "mini", replace(encoder.tower, positions=encoder.tower.positions * 1.01), encoder.tokenizer, encoder.specials
    )
    assert other.fingerprint != encoder.fingerprint


def test_the_built_in_model_loads_fast_without_open_clip_or_a_connection() -> None:
    code = """
import sys, time, socket, torch, softprompt
socket.socket.connect = None
began = time.perf_counter()
encoder = softprompt.load_encoder("mini")
print(time.perf_counter() - began, "open_clip" in sys.modules, "torchvision" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, open_clip, torchvision = done.stdout.split()
    assert (open_clip, torchvision) == ("False", "False")
    assert float(seconds) < 1


def test_the_built_in_model_is_small_enough_to_ship() -> None:
    from softprompt.encoders.catalog import MINI_FOLDER

    files = {file.name: len(file.read_bytes()) for file in MINI_FOLDER.iterdir()}
    assert set(files) == {"config.json", "model.safetensors", "README.md"}
    assert sum(files.values()) < 40_000_000


def test_one_text_is_a_list_of_one_and_not_of_its_letters(encoder: TextEncoder) -> None:
    assert torch.equal(encoder.encode("a fox"), encoder.encode(["a fox"]))
    vectors = torch.zeros(1, encoder.width)
    prompt = tokenize_target(encoder, "a fox", (), "refuse")
    assert grade(encoder, prompt, vectors, "{} at night") == grade(encoder, prompt, vectors, ["{} at night"])
    with pytest.raises(ConfigError, match=r"must hold \{\} once"):
        grade(encoder, prompt, vectors, "at night")
    config = TrainConfig(contexts="a photo of {}", against=["a cat"], objective="contrastive")  # type: ignore[arg-type]
    assert (config.contexts, config.against) == (("a photo of {}",), ("a cat",))
    assert HardConfig(block="fox").block == ("fox",)  # type: ignore[arg-type]
    for wrong in (5, None, {"a": 1}, [5]):
        with pytest.raises(ConfigError, match=r"against is .*; it must be a text or a list of texts"):
            TrainConfig(against=wrong, objective="contrastive")  # type: ignore[arg-type]
    library = Library()
    library.save(a_prompt(name="fox"))
    assert library.tag("fox", "animal").tags == ("animal",)
    assert [entry.name for entry in library.list(tags="animal").entries] == ["fox"]
    assert library.tag("fox", ["red"], "animal").tags == ("red",)
    assert Defaults(tags="animal").tags == ("animal",)  # type: ignore[arg-type]
