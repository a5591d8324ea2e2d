"""The readout: the nearest readable tokens, and the similarity of their text."""

from __future__ import annotations

import pytest
import torch

from softprompt.encoders.base import is_readable
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.evaluation.readout import read_out, readable_vocabulary, readout_similarity
from tests.conftest import FOX


def test_vector_of_a_word_reads_as_that_word(encoder: TextEncoder) -> None:
    vectors = encoder.embed(encoder.tokenize("red fox"))
    tokens, text = read_out(encoder, vectors, alternatives=3)
    assert text == "red fox"
    assert [token.token for token in tokens] == ["red", "fox"]
    assert all(token.cosine == pytest.approx(1, abs=1e-5) and len(token.alternatives) == 3 for token in tokens)
    cosines = [tokens[0].cosine, *(neighbour.cosine for neighbour in tokens[0].alternatives)]
    assert cosines == sorted(cosines, reverse=True)


def test_readout_similarity_is_the_similarity_of_the_text(encoder: TextEncoder) -> None:
    target = encoder.encode([FOX])[0]
    assert readout_similarity(encoder, FOX, target) == pytest.approx(1, abs=1e-5)
    assert readout_similarity(encoder, "tax law", target) < 0.5


def test_readout_has_no_special_or_unreadable_tokens(encoder: TextEncoder) -> None:
    ids, unit = readable_vocabulary(encoder)
    pieces = [encoder.tokenizer.piece(i) for i in ids.tolist()]
    assert "<end_of_text>" not in pieces
    assert all(map(is_readable, pieces))
    assert len(ids) > 48_000
    tokens, _ = read_out(encoder, encoder.tower.table[49407:49408])
    assert tokens[0].token != "<end_of_text>"
    assert tokens[0].cosine < 1
    torch.testing.assert_close(unit.norm(dim=-1), torch.ones(len(ids)))


@pytest.mark.parametrize(
    ("piece", "readable"),
    [("lake", True), ("é", True), ("🙂", True), ("", False), (" ", False), ("\ufffd", False), ("\x1b", False)],
)
def test_readable_pieces_can_be_shown_and_typed(piece: str, readable: bool) -> None:
    assert is_readable(piece) is readable
