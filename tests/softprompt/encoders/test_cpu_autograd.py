"""The gradient that is written by hand is autograd's, whatever the tower looks like and whatever its attention sees."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from softprompt.bench.random_towers import random_tower
from softprompt.encoders.clip import cpu_autograd
from softprompt.encoders.clip.transformer import TextTransformer, TextTransformerConfig
from softprompt.objectives.losses import cosines

SMALL = TextTransformerConfig(width=32, heads=4, layers=3, context=16, vocabulary=50, embed_dim=24, mlp_width=48)
CLOSE = {"rtol": 1e-4, "atol": 1e-6}


def a_tower(**other: Any) -> TextTransformer:
    """Random weights, also where towers begin with ones and zeros."""
    tower = random_tower(replace(SMALL, **other))
    rng = torch.Generator().manual_seed(1)

    def shaken(tensor: Tensor) -> Tensor:
        return tensor + 0.1 * torch.randn(tensor.shape, generator=rng)

    blocks = [type(block)(*map(shaken, block)) for block in tower.blocks]
    return replace(tower, blocks=blocks, norm_weight=shaken(tower.norm_weight), norm_bias=shaken(tower.norm_bias))


def some(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def both(
    tower: TextTransformer, x: Tensor, at: Tensor, mask: Tensor | None = None, past: Any = None
) -> tuple[list[Tensor], list[Tensor]]:
    """(outputs, gradient) by hand and by autograd, of a loss that weighs every number differently."""
    found = []
    for compute in (cpu_autograd.pooled_outputs, TextTransformer.pooled_outputs):
        leaf = x.clone().requires_grad_()
        outputs = compute(tower, leaf, at, mask, past)
        (gradient,) = torch.autograd.grad((outputs * some(*outputs.shape, seed=2)).sum(), leaf)
        found.append([outputs.detach(), gradient])
    return found[0], found[1]


def assert_same(ours: list[Tensor], theirs: list[Tensor]) -> None:
    for mine, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, reference, **CLOSE)


def test_this_torch_has_the_kernels() -> None:
    assert cpu_autograd.HAS_KERNELS


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "quick_gelu"])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("rows", [1, 5])
def test_it_is_autograds(activation: str, causal: bool, rows: int) -> None:
    tower = a_tower(activation=activation, causal=causal)
    assert_same(*both(tower, some(rows, 7, 32), torch.arange(rows) + 2))


def test_it_is_autograds_where_an_mlp_is_too_large_for_the_small_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_autograd, "SMALL", 0)
    assert_same(*both(a_tower(), some(4, 7, 32), torch.tensor([6, 3, 5, 1])))


@pytest.mark.parametrize("boolean", [True, False])
def test_masks_are_seen(boolean: bool) -> None:
    seen = torch.ones(3, 1, 7, 7, dtype=torch.bool).tril()
    seen[1, :, :, 2] = False
    seen[:, :, 2, 2] = True  # a position that sees nothing has no answer
    mask = seen if boolean else torch.zeros(seen.shape).masked_fill(~seen, float("-inf"))
    ours, theirs = both(a_tower(), some(3, 7, 32), torch.tensor([6, 4, 5]), mask)
    assert_same(ours, theirs)
    assert float(ours[1][1, 2].abs().max()) == 0.0  # what nobody sees has no slope


@pytest.mark.parametrize("times", [1, 3])
def test_what_stands_before_serves_the_rows_in_turn(times: int) -> None:
    tower = a_tower()
    with torch.no_grad():
        past = tower.past(some(2, 3, 32, seed=5))
    mask = torch.ones(5, 8, dtype=torch.bool).tril(3).expand(2 * times, 1, -1, -1)
    assert_same(*both(tower, some(2 * times, 5, 32), torch.arange(2 * times).clamp(max=4), mask, past))


def test_towers_without_a_projection_and_with_a_bias() -> None:
    x, at = some(2, 6, 32), torch.tensor([5, 3])
    assert_same(*both(replace(a_tower(), projection=None), x, at))
    assert_same(*both(replace(a_tower(), projection_bias=some(24, seed=3)), x, at))


def test_in_other_precisions_autograd_does_it() -> None:
    tower = a_tower().to(torch.device("cpu"), torch.float64)
    assert_same(*both(tower, some(2, 6, 32).double(), torch.tensor([5, 3])))
    leaf = some(2, 6, 32).double().requires_grad_()
    assert "Outputs" not in type(cpu_autograd.pooled_outputs(tower, leaf, torch.tensor([5, 3])).grad_fn).__name__


def test_the_gradient_of_a_cosine_is_autograds() -> None:
    directions = F.normalize(some(3, 2, 24, seed=4), dim=-1)
    found = []
    for compute in (cosines, lambda a, b: F.cosine_similarity(a, b, dim=-1)):
        leaf = some(3, 2, 24).requires_grad_()
        values = compute(leaf, directions)
        (gradient,) = torch.autograd.grad((values * some(3, 2, seed=6)).sum(), leaf)
        found.append([values.detach(), gradient])
    assert_same(*found)
