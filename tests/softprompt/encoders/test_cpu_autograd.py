"""The hand-written gradient of the pooled outputs equals autograd's, for every kind of tower and mask."""

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
TOLERANCES = {"rtol": 1e-4, "atol": 1e-6}


def make_tower(**settings: Any) -> TextTransformer:
    """Return a tower with random weights, including norms and biases, which usually start at 1 and 0."""
    tower = random_tower(replace(SMALL, **settings))
    rng = torch.Generator().manual_seed(1)

    def perturb(tensor: Tensor) -> Tensor:
        return tensor + 0.1 * torch.randn(tensor.shape, generator=rng)

    blocks = [type(block)(*map(perturb, block)) for block in tower.blocks]
    return replace(tower, blocks=blocks, norm_weight=perturb(tower.norm_weight), norm_bias=perturb(tower.norm_bias))


def random_tensor(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_hand_and_by_autograd(
    tower: TextTransformer, x: Tensor, pooled_at: Tensor, mask: Tensor | None = None, past: Any = None
) -> tuple[list[Tensor], list[Tensor]]:
    """Return [outputs, gradient] of both implementations, for a loss with a random weight for every output."""
    results = []
    for compute in (cpu_autograd.pooled_outputs, TextTransformer.pooled_outputs):
        leaf = x.clone().requires_grad_()
        outputs = compute(tower, leaf, pooled_at, mask, past)
        (gradient,) = torch.autograd.grad((outputs * random_tensor(*outputs.shape, seed=2)).sum(), leaf)
        results.append([outputs.detach(), gradient])
    return results[0], results[1]


def assert_same(actual: list[Tensor], expected: list[Tensor]) -> None:
    for actual_tensor, expected_tensor in zip(actual, expected, strict=True):
        torch.testing.assert_close(actual_tensor, expected_tensor, **TOLERANCES)


def test_torch_has_the_cpu_kernels() -> None:
    assert cpu_autograd.HAS_KERNELS


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "quick_gelu"])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("rows", [1, 5])
def test_gradient_equals_autograd(activation: str, causal: bool, rows: int) -> None:
    tower = make_tower(activation=activation, causal=causal)
    assert_same(*by_hand_and_by_autograd(tower, random_tensor(rows, 7, 32), torch.arange(rows) + 2))


def test_gradient_equals_autograd_for_an_mlp_too_large_to_transpose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_autograd, "MAX_TRANSPOSED_NUMEL", 0)
    assert_same(*by_hand_and_by_autograd(make_tower(), random_tensor(4, 7, 32), torch.tensor([6, 3, 5, 1])))


@pytest.mark.parametrize("is_boolean", [True, False])
def test_masks_are_respected(is_boolean: bool) -> None:
    visible = torch.ones(3, 1, 7, 7, dtype=torch.bool).tril()
    visible[1, :, :, 2] = False
    visible[:, :, 2, 2] = True  # a position that sees nothing has no result
    mask = visible if is_boolean else torch.zeros(visible.shape).masked_fill(~visible, float("-inf"))
    actual, expected = by_hand_and_by_autograd(make_tower(), random_tensor(3, 7, 32), torch.tensor([6, 4, 5]), mask)
    assert_same(actual, expected)
    assert float(actual[1][1, 2].abs().max()) == 0.0  # an invisible position has no gradient


@pytest.mark.parametrize("repeats", [1, 3])
def test_a_prefix_is_repeated_for_all_rows(repeats: int) -> None:
    tower = make_tower()
    with torch.no_grad():
        past = tower.compute_past(random_tensor(2, 3, 32, seed=5))
    mask = torch.ones(5, 8, dtype=torch.bool).tril(3).expand(2 * repeats, 1, -1, -1)
    assert_same(
        *by_hand_and_by_autograd(
            tower, random_tensor(2 * repeats, 5, 32), torch.arange(2 * repeats).clamp(max=4), mask, past
        )
    )


def test_projection_may_be_missing_or_have_a_bias() -> None:
    x, pooled_at = random_tensor(2, 6, 32), torch.tensor([5, 3])
    assert_same(*by_hand_and_by_autograd(replace(make_tower(), projection=None), x, pooled_at))
    assert_same(
        *by_hand_and_by_autograd(replace(make_tower(), projection_bias=random_tensor(24, seed=3)), x, pooled_at)
    )


def test_other_precisions_use_autograd() -> None:
    tower = make_tower().to(torch.device("cpu"), torch.float64)
    assert_same(*by_hand_and_by_autograd(tower, random_tensor(2, 6, 32).double(), torch.tensor([5, 3])))
    leaf = random_tensor(2, 6, 32).double().requires_grad_()
    assert "Outputs" not in type(cpu_autograd.pooled_outputs(tower, leaf, torch.tensor([5, 3])).grad_fn).__name__


def test_gradient_of_a_cosine_equals_autograd() -> None:
    directions = F.normalize(random_tensor(3, 2, 24, seed=4), dim=-1)
    results = []
    for compute in (cosines, lambda a, b: F.cosine_similarity(a, b, dim=-1)):
        leaf = random_tensor(3, 2, 24).requires_grad_()
        values = compute(leaf, directions)
        (gradient,) = torch.autograd.grad((values * random_tensor(3, 2, seed=6)).sum(), leaf)
        results.append([values.detach(), gradient])
    assert_same(*results)
