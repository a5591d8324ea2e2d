"""Prompt tuning on examples: train soft tokens until a language model gives the outputs of examples for their inputs.

The loss is the cross-entropy of the output's tokens, with its end token, averaged over the tokens of an example and
then over the examples. Source: Lester et al. 2021 (arXiv 2104.08691).

Shapes: R rows, one per restart of every slot; S scored positions of all rows; k soft tokens, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from softprompt.arguments import checked_fields
from softprompt.config import LongPromptPolicy, Placement, TrainConfig
from softprompt.encoders.base import check_token_count, encode_prompt
from softprompt.encoders.causal_lm.model import CausalLM
from softprompt.encoders.causal_lm.packed_rows import PackedBatch, PackedRow
from softprompt.encoders.causal_lm.question_rows import SOFT, Ids, bare_row, common_start, encode_around, encode_output
from softprompt.errors import ConfigError, PromptError
from softprompt.objectives.base import Evaluation, HardPrompt, SlotTarget
from softprompt.objectives.distillation import SAVED_WIDTHS_PER_POSITION
from softprompt.prompts.examples import Example, ExampleSet
from softprompt.prompts.lineage import WeightedText

EXAMPLES_PER_STEP = 8
MAX_STEP_POSITIONS = 1024  # of one row, unless a single example is longer
TYPICAL_EXAMPLE = 40  # tokens, with the template around it
ANSWER_MARGIN = 8  # tokens that an answer may have more than the output
MAX_MASK_BYTES = 2 << 30  # of the attention masks of all turns


@checked_fields
@dataclass(frozen=True)
class ExamplePrompt(HardPrompt):
    """Examples in place of a hard prompt. `text` is their summary, `chunks` the tokens to start from."""

    examples: ExampleSet = field(kw_only=True)


@dataclass(frozen=True)
class EncodedExample:
    """The token ids of an example: in front of the soft tokens, behind them, and of the output with its end token."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    output: tuple[int, ...]

    def row(self, tokens: int) -> Ids:
        """Return the ids of the input with SOFT in place of each soft token."""
        return [*self.before, *[SOFT] * tokens, *self.after]

    @property
    def length(self) -> int:
        """Number of tokens without soft tokens."""
        return len(self.before) + len(self.after) + len(self.output)


@dataclass(frozen=True)
class ExampleTarget:
    """What a run is compared against. All runs of a batch have the same examples, so there is nothing of its own."""

    skipped: tuple[str, ...] = ()


class ExampleObjective:
    """The objective "examples". Implements `Objective`; its methods are documented there.

    Args:
        tokens: the token counts that occur in the batch.
        examples: what to train on.

    Raises:
        ConfigError: the largest count does not fit into the model's context length, or the examples not into memory.
        PromptError: an example contains a special token, or is too long for the model.
        ModelRefused: the model has no usable chat template.
    """

    similarity_varies = True

    def __init__(self, model: CausalLM, config: TrainConfig, tokens: Sequence[int], examples: ExampleSet) -> None:
        self.model, self.config, self.examples = model, config, examples
        self.tokens = max(tokens)
        check_token_count(model, self.tokens)
        encode_examples(model, examples.held_out.examples, self.tokens, config.placement)  # before training, not after
        training = shuffled(examples.training.examples, config.seed)
        encoded = encode_examples(model, training, self.tokens, config.placement)
        # turns that no step would reach take no memory
        self.groups = group_examples(encoded, EXAMPLES_PER_STEP, MAX_STEP_POSITIONS)[: config.steps]
        lengths = [sum(example.length for example in group) for group in self.groups]
        self.longest = max(lengths)
        mask_bytes = config.restarts * model.dtype.itemsize * sum((self.tokens + length) ** 2 for length in lengths)
        if mask_bytes > MAX_MASK_BYTES:
            raise ConfigError(
                f"the examples need {mask_bytes / 1e9:,.1f} GB for their attention masks; the limit is "
                f"{MAX_MASK_BYTES / 1e9:,.1f} GB. Use shorter or fewer examples, or fewer steps."
            )
        self.batches: list[PackedBatch] = []
        self.outputs: list[Tensor] = []  # of each turn: the right token at each scored position, (S,)
        self.weights: list[Tensor] = []  # of each turn: the share of each position in its row's mean, (S,)

    @property
    def turns(self) -> int:
        return len(self.groups)

    @property
    def positions(self) -> int:
        return self.tokens + self.longest

    @property
    def row_bytes(self) -> int:
        states = SAVED_WIDTHS_PER_POSITION * self.model.width * self.model.layers * self.model.dtype.itemsize
        scored = max(sum(len(example.output) for example in group) for group in self.groups)
        return self.positions * states + 3 * scored * self.model.vocabulary * 4

    def tokenize(self, text: str, meanings: Sequence[WeightedText], long: LongPromptPolicy) -> HardPrompt:  # noqa: ARG002
        return example_prompt(self.model, text, self.config, self.examples)

    def prepare(self, prompts: Sequence[tuple[HardPrompt, TrainConfig, str]]) -> list[ExampleTarget]:
        return [ExampleTarget() for _ in prompts]

    def set_slots(self, slots: Sequence[SlotTarget]) -> None:
        device = self.model.device
        self.batches, self.outputs, self.weights = [], [], []
        count = sum(slot.rows for slot in slots)
        for group in self.groups:
            rows = [row for slot in slots for row in [pack_examples(group, slot.tokens)] * slot.rows]
            self.batches.append(PackedBatch(self.model, rows))
            output = torch.tensor([token for example in group for token in example.output], device=device)
            self.outputs.append(output.repeat(count))
            self.weights.append(position_weights(group).repeat(count).to(device))

    def evaluate(self, vectors: Tensor, turn: int) -> Evaluation:
        batch, output, weights = self.batches[turn], self.outputs[turn], self.weights[turn]
        logits = batch.logits(vectors)
        losses = F.cross_entropy(logits, output, reduction="none")
        right = (logits.argmax(-1) == output).float()
        loss, accuracy = (
            values.new_zeros(len(vectors)).index_add(0, batch.scored_rows, values * weights)
            for values in (losses, right)
        )
        return Evaluation(loss, accuracy.detach(), accuracy.detach())


def typical_positions(tokens: int) -> int:
    """Return the positions of one row with this many soft tokens and examples of ordinary length."""
    return tokens + EXAMPLES_PER_STEP * TYPICAL_EXAMPLE


def example_prompt(model: CausalLM, text: str, config: TrainConfig, examples: ExampleSet) -> ExamplePrompt:
    """Return examples as the prompt of a run.

    Args:
        text: their summary.

    Raises:
        PromptError: the instruction contains a special token.
    """
    # the summary's own tokens only fill the field: no run starts from them
    ids = encode_prompt(model.tokenizer, config.instruction) or model.tokenizer.encode(text)
    return ExamplePrompt(text, (tuple(ids),), examples=examples)


def encode_examples(
    model: CausalLM, examples: Sequence[Example], tokens: int, placement: Placement
) -> list[EncodedExample]:
    """Return the token ids of examples, for a placement of soft tokens.

    Args:
        tokens: number of soft tokens, which must fit as well.

    Raises:
        PromptError: an example contains a special token, or is too long for the model.
    """
    end = end_token(model, placement)
    encoded = []
    for example in examples:
        try:
            before, after = encode_around(model, example.input, placement)
            output = [*encode_output(model, example.output, placement), *end]
        except PromptError as error:
            raise PromptError(f"{example.origin} cannot be used: {error}") from error
        # without a prompt, some templates add a text of their own
        around = max(len(before) + tokens + len(after), len(bare_row(model, example.input, placement)))
        if (length := around + len(output) + ANSWER_MARGIN) > model.window:
            raise PromptError(
                f"{example.origin} takes {length:,} tokens with the template, {tokens} soft tokens and room for an "
                f"answer, but {model.name} reads {model.window:,} at once. Shorten or remove it."
            )
        encoded.append(EncodedExample(tuple(before), tuple(after), tuple(output)))
    return encoded


def end_token(model: CausalLM, placement: Placement) -> tuple[int, ...]:
    """Return the token that ends a turn in the chat template, or else the model's first end token. () if none."""
    if placement == "start":
        return model.specials.end[:1]
    after = model.chat_template.encode("a").after  # from the user's text to the answer, so the user's turn ends in it
    end = next((token for token in after if token in model.specials.end), None)
    return model.specials.end[:1] if end is None else (end,)


def shuffled(examples: Sequence[Example], seed: int) -> list[Example]:
    """Return the examples in random order: many files are sorted by their outputs."""
    order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(seed))
    return [examples[index] for index in order.tolist()]


def group_examples(examples: Sequence[EncodedExample], count: int, max_tokens: int) -> list[list[EncodedExample]]:
    """Split examples into groups of at most `count` examples and `max_tokens` tokens; a longer one has its own group.

    Groups that only the count limits have almost the same size, so that every example has almost the same weight.
    """
    size = -(-len(examples) // -(-len(examples) // count))
    groups: list[list[EncodedExample]] = []
    length = 0
    for example in examples:
        if not groups or len(groups[-1]) == size or length + example.length > max_tokens:
            groups.append([])
            length = 0
        groups[-1].append(example)
        length += example.length
    return groups


def pack_examples(examples: Sequence[EncodedExample], tokens: int) -> PackedRow:
    """Return a packed row of inputs with their outputs. What the inputs share at their start comes once."""
    rows = [example.row(tokens) for example in examples]
    return pack_outputs(rows, [example.output for example in examples])


def pack_outputs(rows: Sequence[Ids], outputs: Sequence[Sequence[int]]) -> PackedRow:
    """Return a packed row of texts, each with its output. What the texts share at their start comes once."""
    packed = PackedRow()
    begin = common_start(rows)
    root = packed.add(rows[0][:begin])
    for row, output in zip(rows, outputs, strict=True):
        packed.add_answer(output, packed.add(row[begin:], root))
    return packed


def position_weights(examples: Sequence[EncodedExample]) -> Tensor:
    """Return the weight (S,) of each scored position: all examples have the same, and so do the tokens of each."""
    return torch.tensor([1 / (len(example.output) * len(examples)) for example in examples for _ in example.output])
