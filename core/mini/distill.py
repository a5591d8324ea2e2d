"""Step 3 of `mini`: train the student on the teacher's embeddings.

    python core/mini/distill.py [--work FOLDER] [--steps N] [--layers 4]

Continues from its checkpoint when started again, and writes the package's weights at every checkpoint. --steps may
change between starts: the learning rate is constant for the first quarter, then falls to zero. The same seed, versions
and number of threads give the same bits.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from grade import format_scores
from package import STUDENT, save_package
from softprompt.encoders.clip.tokenizer import Tokenizer
from softprompt.encoders.clip.transformer import Block, TextTransformer, TextTransformerConfig
from texts import Texts, batches, encode_rows

CHECKPOINT_STEPS = 250
RATE, MATRIX_RATE = 1e-3, 0.01
WARM_UP, DECAY_SHARE = 200, 0.75
# temperature of the similarities within a batch; weights of their KL divergence and of the tokens before the end token
TEMPERATURE, RELATIONS_WEIGHT, RUNNING_WEIGHT = 0.05, 0.5, 0.5


def new_student(config: TextTransformerConfig, vocabulary: Tensor, seed: int) -> TextTransformer:
    """Create a student: blocks initialized like CLIP's, and the teacher's token embeddings, reduced by PCA."""
    rng = torch.Generator().manual_seed(seed)
    w = config.width

    def normal(*shape: int, std: float) -> Tensor:
        return torch.randn(*shape, generator=rng) * std

    centred = vocabulary - vocabulary.mean(0)
    _, basis = torch.linalg.eigh(centred.T @ centred)
    table = centred @ basis[:, -w:]
    residual = w**-0.5 * (2 * config.layers) ** -0.5
    blocks = [
        Block(
            torch.ones(w),
            torch.zeros(w),
            normal(3 * w, w, std=w**-0.5),
            torch.zeros(3 * w),
            normal(w, w, std=residual),
            torch.zeros(w),
            torch.ones(w),
            torch.zeros(w),
            normal(config.mlp_width, w, std=(2 * w) ** -0.5),
            torch.zeros(config.mlp_width),
            normal(w, config.mlp_width, std=residual),
            torch.zeros(w),
        )
        for _ in range(config.layers)
    ]
    return TextTransformer(
        config,
        table / table.std() * 0.02,
        normal(config.context, w, std=0.01),
        blocks,
        torch.ones(w),
        torch.zeros(w),
        basis[:, -w:].T.contiguous(),
    )


def trainable_parameters(tower: TextTransformer) -> list[Tensor]:
    blocks = [weight for block in tower.blocks for weight in block]
    parameters = [tower.table, tower.positions, tower.norm_weight, tower.norm_bias, tower.projection, *blocks]
    return [p.requires_grad_() for p in parameters if p is not None]


def compute_loss(tower: TextTransformer, ids: Tensor, ends: Tensor, targets: Tensor) -> Tensor:
    """Return the loss: 1 - cosine at the end token and at all tokens before it, plus KL of in-batch similarities."""
    x = F.embedding(ids, tower.table) + tower.positions[: ids.shape[1]]
    outputs = F.normalize(tower.project(tower.final_norm(tower.states(x)))[:, 1:], dim=-1)
    similarity = (outputs * targets).sum(-1)
    rows = torch.arange(len(ids))
    before_end = torch.arange(ids.shape[1] - 1) < (ends - 1).unsqueeze(1)
    loss = 1 - similarity[rows, ends - 1].mean() + RUNNING_WEIGHT * (1 - similarity[before_end].mean())
    pooled, targets = outputs[rows, ends - 1], targets[rows, ends - 1]
    student, teacher = ((v @ v.T / TEMPERATURE).fill_diagonal_(-1e4).log_softmax(-1) for v in (pooled, targets))
    return loss + RELATIONS_WEIGHT * F.kl_div(student, teacher, reduction="batchmean", log_target=True)


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalized by a Newton-Schulz iteration, for matrices (Jordan et al. 2024), in float32.

    torch.optim.Muon iterates in bfloat16, which is many times slower on a CPU without bfloat16 instructions.
    """

    def __init__(self, matrices: list[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.02) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
                buffer.lerp_(p.grad, 1 - group["momentum"])
                update = p.grad.lerp(buffer, group["momentum"])
                # one matrix holds query, key and value: orthogonalize each
                parts = update.chunk(3) if p.shape[0] == 3 * p.shape[1] else (update,)
                update = torch.cat([orthogonalize(part) for part in parts])
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-group["lr"] * max(1.0, p.shape[0] / p.shape[1]) ** 0.5)


def orthogonalize(matrix: Tensor) -> Tensor:
    x = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x if matrix.shape[0] <= matrix.shape[1] else x.T


def rate_factor(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / WARM_UP, (steps - step) / (DECAY_SHARE * steps))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("mini-work"))
    parser.add_argument("--output", type=Path, help="folder for the package's files (default: the work folder)")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--layers", type=int, default=STUDENT["layers"])
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    output = args.output or args.work
    tokenizer = Tokenizer()
    train, test = Texts(args.work, "train"), Texts(args.work, "test")
    config = TextTransformerConfig(**(STUDENT | {"layers": args.layers}))
    tower = new_student(config, load_file(args.work / "vocabulary.safetensors")["pooled"].float(), args.seed)
    parameters = trainable_parameters(tower)
    matrices = [weight for block in tower.blocks for weight in block if weight.ndim == 2]
    others = [p for p in parameters if not any(p is m for m in matrices)]
    optimizers = [
        Muon(matrices, MATRIX_RATE),
        torch.optim.AdamW(others, RATE, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]
    checkpoint, step = args.work / "checkpoint.pt", 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        step = saved["step"]
        for p, value in zip(parameters, saved["parameters"], strict=True):
            p.data.copy_(value)
        for optimizer, state in zip(optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
    started_at, positions = time.monotonic(), 0
    for ids, ends, targets in batches(train, tokenizer, step, args.seed):
        if step >= args.steps:
            break
        for optimizer, rate in zip(optimizers, (MATRIX_RATE, RATE), strict=True):
            optimizer.param_groups[0]["lr"] = rate * rate_factor(step, args.steps)
            optimizer.zero_grad()
        loss = compute_loss(tower, ids, ends, targets)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        step, positions = step + 1, positions + ids.numel()
        if step % 50 == 0:
            print(
                f"step {step} loss {loss.item():.4f} {positions / (time.monotonic() - started_at):.0f} positions/s",
                flush=True,
            )
        if step % CHECKPOINT_STEPS == 0 or step == args.steps:
            partial = checkpoint.with_suffix(".partial")
            torch.save(
                {
                    "step": step,
                    "parameters": [p.detach() for p in parameters],
                    "optimizers": [optimizer.state_dict() for optimizer in optimizers],
                },
                partial,
            )
            partial.replace(checkpoint)
            save_package(tower, output)
            with torch.no_grad():
                rows = torch.arange(0, len(test), 3)
                pooled, targets = encode_rows(tower, test, rows, tokenizer)
            print(f"step {step} held out: {format_scores(pooled, targets)}", flush=True)


if __name__ == "__main__":
    main()
