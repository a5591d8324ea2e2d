"""The readout: nearest words that can be read and typed, and what they mean as text."""

from __future__ import annotations

import pytest
import torch

from softprompt.encoders.base import readable
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.evaluation.readout import read_out, readout_similarity, vocabulary
from tests.conftest import FOX


def test_a_words_own_vector_reads_as_that_word(encoder: TextEncoder) -> None:
    vectors = encoder.embed(encoder.tokenize("red fox"))
    tokens, text = read_out(encoder, vectors, alternatives=3)
    assert text == "red fox"
    assert [token.token for token in tokens] == ["red", "fox"]
    assert all(token.cosine == pytest.approx(1, abs=1e-5) and len(token.alternatives) == 3 for token in tokens)
    cosines = [tokens[0].cosine, *(near.cosine for near in tokens[0].alternatives)]
    assert cosines == sorted(cosines, reverse=True)


def test_its_similarity_is_that_of_the_text_typed_again(encoder: TextEncoder) -> None:
    target = encoder.encode([FOX])[0]
    assert readout_similarity(encoder, FOX, target) == pytest.approx(1, abs=1e-5)
    assert readout_similarity(encoder, "tax law", target) < 0.5


def test_special_and_unreadable_tokens_are_never_shown(encoder: TextEncoder) -> None:
    ids, unit = vocabulary(encoder)
    pieces = [encoder.tokenizer.piece(i) for i in ids.tolist()]
    assert "<end_of_text>" not in pieces
    assert all(map(readable, pieces))
    assert len(ids) > 48_000
    tokens, _ = read_out(encoder, encoder.tower.table[49407:49408])
    assert tokens[0].token != "<end_of_text>"
    assert tokens[0].cosine < 1
    torch.testing.assert_close(unit.norm(dim=-1), torch.ones(len(ids)))


@pytest.mark.parametrize(
    ("piece", "fine"),
    [("lake", True), ("é", True), ("🙂", True), ("", False), (" ", False), ("\ufffd", False), ("\x1b", False)],
)
def test_readable_is_what_can_be_shown_and_typed(piece: str, fine: bool) -> None:
    assert readable(piece) is fine
