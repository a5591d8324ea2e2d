"""What differs between text encoders and language models in training: the objective, the grading and the cost.

This is the only module of training that knows the kinds of models.

Shapes: k soft tokens, w width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from softprompt.config import TrainConfig, check_objective
from softprompt.encoders.causal_lm.model import CausalLM
from softprompt.encoders.clip.rows import ALONE
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.encoders.loading import load_model
from softprompt.encoders.torch_settings import neutral_torch
from softprompt.errors import examples_and_objective_differ
from softprompt.evaluation.answers import grade_answers
from softprompt.evaluation.examples import grade_examples
from softprompt.evaluation.fidelity import grade
from softprompt.evaluation.hidden_states import hidden_similarities
from softprompt.evaluation.readout import read_out, readout_similarity
from softprompt.objectives.base import HardPrompt, Objective
from softprompt.objectives.distillation import DistillationObjective, tokenize_prompt, typical_positions
from softprompt.objectives.examples import ExampleObjective, ExamplePrompt, example_prompt
from softprompt.objectives.examples import typical_positions as typical_example_positions
from softprompt.objectives.hard_prompt import tokenize_target
from softprompt.objectives.hidden_states import HiddenStatesObjective
from softprompt.objectives.pooled import MAX_TURNS, PooledObjective, encode_target
from softprompt.objectives.workspace import NO_WORKSPACE, Workspace
from softprompt.prompts.examples import ExampleSet
from softprompt.prompts.lineage import WeightedText
from softprompt.prompts.soft_prompt import Array, SoftPrompt
from softprompt.training.init import init_vectors
from softprompt.training.optimizer import clip_norm

Model = TextEncoder | CausalLM
AUTO_TOKENS = {"text": tuple(range(1, 17)), "causal": (1, 2, 4, 8, 16, 32)}  # the token counts that "auto" tries
POSITIONS_AROUND = 4  # computed in a context besides the soft tokens, on average (encoders.clip.context_batch)


def load_on_cpu(model: Model) -> Model:
    """Load the same model on the CPU. Raises the same errors as `load_model`."""
    return load_model(model.name, "cpu")


def tokenize(
    model: Model,
    text: str,
    meanings: Sequence[WeightedText],
    config: TrainConfig,
    examples: ExampleSet | None = None,
) -> HardPrompt:
    """Tokenize a hard prompt, the mix of `meanings`, or `examples` with their summary `text`.

    Raises:
        PromptError, ConfigError: one of them cannot be used with the model.
    """
    if not isinstance(model, CausalLM):
        return tokenize_target(model, text, meanings, config.long)
    if examples is not None:
        return example_prompt(model, text, config, examples)
    return tokenize_prompt(model, text, meanings, config.long)


def check_examples(config: TrainConfig, examples: ExampleSet | None) -> None:
    """Raise ConfigError unless there are examples exactly if the objective trains on them."""
    if (config.objective == "examples") != (examples is not None):
        raise examples_and_objective_differ(config.objective)


def make_objective(
    model: Model,
    config: TrainConfig,
    token_counts: Sequence[int],
    workspace: Workspace = NO_WORKSPACE,
    examples: ExampleSet | None = None,
) -> Objective:
    """Return the objective for a batch whose soft prompts have these token counts.

    Args:
        examples: what the objective "examples" trains on.

    Raises:
        ConfigError: the objective does not fit the model, or cannot be used with these settings.
    """
    check_objective(config, model.kind, model.name)
    check_examples(config, examples)
    if isinstance(model, CausalLM):
        if examples is not None:
            return ExampleObjective(model, config, token_counts, examples)
        return DistillationObjective(model, config, token_counts, workspace)
    objective_class = HiddenStatesObjective if config.hidden_weight else PooledObjective
    return objective_class(model, config, token_counts)


def step_cost(model: Model, config: TrainConfig, tokens: int, rows: int) -> int:
    """Return the multiplications of a step per layer, roughly."""
    if isinstance(model, CausalLM):
        positions = typical_example_positions if config.objective == "examples" else typical_positions
        return rows * positions(tokens) * model.width**2
    contexts = 1 + math.ceil(len(config.contexts) / MAX_TURNS)
    return rows * contexts * (tokens + POSITIONS_AROUND) * model.width**2


@neutral_torch()
def measure(
    model: Model,
    prompt: HardPrompt,
    vectors: Tensor | Array,
    config: TrainConfig | None = None,
    run: str = "",
    workspace: Workspace = NO_WORKSPACE,
) -> dict[str, Any]:
    """Measure how well `vectors` (k, w) match the hard prompt, and read them out. Returns SoftPrompt fields.

    Args:
        config: the settings of the training, which a language model needs.
        run: the key of the run in the workspace.
    """
    readout, readout_text = read_out(model, vectors)
    if isinstance(model, CausalLM):
        assert config is not None
        common = {
            "target": np.empty(0, np.float32),
            "composition": None,
            "readout": readout,
            "readout_text": readout_text,
            "readout_similarity": None,
        }
        if isinstance(prompt, ExamplePrompt):
            start = init_vectors(model, prompt, config, len(vectors), None)[0]
            start = clip_norm(start, model.token_norm) if config.project_norm else start
            examples = grade_examples(model, prompt, vectors, start, config, workspace=workspace)
            return common | {"similarity": examples.score.accuracy, "examples": examples}
        answers = grade_answers(model, prompt, vectors, config, run=run, workspace=workspace)
        return common | {"similarity": answers.score.agreement, "answers": answers}
    similarity, composition = grade(model, prompt, vectors)
    target = F.normalize(encode_target(model, prompt, [ALONE])[0], dim=-1).cpu()
    return {
        "target": target.numpy(),
        "similarity": similarity,
        "composition": composition,
        "readout": readout,
        "readout_text": readout_text,
        "readout_similarity": readout_similarity(model, readout_text, target),
        "hidden": hidden_similarities(model, prompt, vectors),
    }


def distance_to_goal(soft_prompt: SoftPrompt, config: TrainConfig) -> float:
    """Return how far a graded soft prompt is from `config.stop_at`; at most 0 if it reaches it."""
    assert config.stop_at is not None
    assert soft_prompt.similarity is not None
    if soft_prompt.answers is not None:
        share = soft_prompt.answers.kl_share
        return math.inf if math.isnan(share) else share - config.stop_at
    composed = soft_prompt.composition.mean if soft_prompt.composition and config.contexts else soft_prompt.similarity
    return config.stop_at - min(soft_prompt.similarity, composed)
