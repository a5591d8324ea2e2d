"""Many trainings in one batch: each has its rows in it, and those that are over leave their place to the next.

A training alone, its restarts, a sweep over numbers of tokens and thousands of prompts are all pools. Shapes: R rows (the restarts of all
members, one after another), r of one member, k soft tokens, w width, b contexts (the prompt alone first), e embed_dim.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from softprompt.config import TrainConfig
from softprompt.encoders.clip.context_batch import SoftRows
from softprompt.encoders.clip.rows import ALONE, Read, with_room
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.errors import too_many
from softprompt.objectives.base import HardPrompt
from softprompt.objectives.hard_prompt import fitting
from softprompt.objectives.hidden_states import HiddenTarget, best_match
from softprompt.objectives.losses import cosines, row_losses
from softprompt.objectives.pooled import targets_of
from softprompt.prompts.contexts import split_context
from softprompt.text_states import READS
from softprompt.training.cuda_graphs import graphs_for
from softprompt.training.optimizer import CHECK_STEPS, Descent, Figures, Schedule, fresh, held
from softprompt.training.slot import Look, Member
from softprompt.training.task import TrainState

GROUPS = 4  # the contexts take turns: a quarter of them a step trains as well as all (measured), 2.5 times as fast
ALONE_SHARE = 0.3  # of the loss; the contexts share the rest


class Pool:
    """Trainings of one plan on one encoder. `tokens` are the numbers of soft tokens that its members have.

    Raises ConfigError for more soft tokens than fit; torch's RuntimeError where the device fails.
    """

    def __init__(self, encoder: TextEncoder, config: TrainConfig, tokens: Sequence[int]) -> None:
        self.encoder, self.config, self.tokens = encoder, config, sorted(set(tokens))
        most = self.tokens[-1]
        check_tokens(encoder, most)
        self.contexts = with_room(encoder, config.contexts, most)
        self.groups = _groups(encoder, self.contexts)
        whole = bool(config.share_of_hidden)
        self.rows = [SoftRows(encoder, [ALONE, *group], self.tokens, whole) for group in self.groups]
        self.others = encoder.encode(config.against) if config.against else None
        self.descent = Descent(encoder.device, most, encoder.width, len(self.groups))
        self.graphs = graphs_for(encoder.device)
        self.members: list[Member] = []
        self.clock = 0
        self._together: list[Look] = []

    def look_at(self, wanted: Sequence[tuple[HardPrompt, TrainConfig, str]]) -> list[Member]:
        """Members that are not yet in, of hard prompts with their settings and keys: all that is computed before a first step, in one pass."""
        most = self.tokens[-1]
        fits = [fitting(self.encoder, prompt, self.contexts, most) for prompt, _, _ in wanted]
        found = targets_of(self.encoder, [(prompt, [ALONE, *some]) for (prompt, _, _), some in zip(wanted, fits, strict=True)])
        members = []
        for (prompt, config, key), some, targets in zip(wanted, fits, found, strict=True):
            by_context = dict(zip([ALONE, *some], targets, strict=True))
            looks = [self._look(prompt, config, group, by_context) for group in self.groups]
            members.append(Member(prompt, config, looks, tuple(one for one in config.contexts if one not in by_context), key))
        return members

    def _look(self, prompt: HardPrompt, config: TrainConfig, group: list[str], targets: dict[str, Tensor]) -> Look:
        encoder = self.encoder
        # where the hard prompt has no room, what it means alone stands in, and weighs nothing
        around = [ALONE, *(context if context in targets else ALONE for context in group)]
        there = torch.tensor([1.0, *(float(context in targets) for context in group)])
        inside = there.clone()
        inside[0] = 0.0
        count = inside.sum()
        share = ALONE_SHARE if bool(count) else 1.0
        weights = inside * (1 - share) / count.clamp(min=1)
        weights[0] = share
        composed = inside / count if bool(count) else there
        hidden = HiddenTarget(encoder, prompt, around, config.family).read if config.share_of_hidden else None
        return Look(
            torch.stack([targets[one] for one in around]), weights.to(encoder.device), composed.to(encoder.device), hidden
        )

    def add(self, newcomers: Sequence[tuple[Member, Tensor, TrainState | None]]) -> None:
        """Lets members in, which begin at a start (r, k, w) or go on from a state."""
        if not newcomers:
            return
        turns = len(self.groups)
        rows, schedules = [], []
        for member, start, resume in newcomers:
            config, r = member.config, member.config.restarts
            if resume is not None:
                member.step, member.before, member.read_to = resume.step, resume.seconds, resume.step
                member.history = [resume.tensors["history"].clone()]
                if not self.members:
                    self.clock = resume.step  # alone it sees the contexts in the order in which it would have
            ceiling = self.encoder.token_norm if config.project_norm else math.inf
            rows.append(fresh(held(start, ceiling), turns) if resume is None else resume.tensors)
            each = (member.step, config.steps, config.rate * self.encoder.token_std, ceiling)
            schedules.append(Schedule(*(torch.full((r,), value) for value in each)))
        self.descent.add(rows, schedules)  # what lacks memory for it leaves all as it was
        new = [member for member, _, _ in newcomers]
        for member in new:
            member.began = time.perf_counter()
        self.members += new
        self._reseat()
        self.read_back(new)
        for member in new:
            if member.step and self.is_due():  # the state may have been taken at the very step that ended it
                self._decide(member)

    def leave(self, gone: Sequence[Member]) -> None:
        """Lets members go."""
        if not gone:
            return
        left = set(gone)
        kept: list[Member] = []
        rows: list[int] = []
        at = 0
        for member in self.members:
            end = at + member.config.restarts
            if member not in left:
                kept.append(member)
                rows += range(at, end)
            at = end
        for member in left:
            member.ended = time.perf_counter()
        self.members = kept
        self.descent.keep(rows)
        self._reseat()

    def _reseat(self) -> None:
        """Puts together what the members are compared with."""
        if self.graphs is not None:
            self.graphs.forget()
        if not self.members:
            return
        each = [(member.looks, member.config.restarts) for member in self.members]
        self._together = []
        for i in range(len(self.groups)):
            targets, weights, composed = (
                torch.cat([getattr(looks[i], name).expand(r, *getattr(looks[i], name).shape) for looks, r in each])
                for name in ("targets", "weights", "composed")
            )
            hidden = _joined([(read, r) for looks, r in each if (read := looks[i].hidden)])
            self._together.append(Look(targets, weights, composed, hidden))
        self._limits = torch.cat(
            [
                torch.full((r,), math.inf if (limit := member.config.stop_at) is None else limit)
                for member in self.members
                for r in (member.config.restarts,)
            ]
        )
        tokens = [member.tokens for member in self.members for _ in range(member.config.restarts)]
        for rows in self.rows:
            rows.seat(tokens)

    def advance(self) -> None:
        """One step of every member. Waits for nothing."""
        turn = self.clock % len(self.groups)
        self.descent.set_numbers(self.clock)
        if self.graphs is None:
            self.descent.step(*self._looked(turn))
        else:
            self.graphs.run(turn, lambda: self.descent.step(*self._looked(turn)))
        self.clock += 1
        for member in self.members:
            member.step += 1

    def _looked(self, turn: int) -> tuple[Tensor, Tensor, Tensor]:
        """(R,) each: losses, and similarities alone and in the contexts of this turn on the average."""
        config, look, rows, soft = self.config, self._together[turn], self.rows[turn], self.descent.vectors
        read = rows.read(soft, READS[config.family]) if look.hidden else None
        outputs = read.outputs if read else rows.outputs(soft)
        cosine = cosines(outputs, look.directions)
        share = config.share_of_hidden
        losses = row_losses(config.objective, outputs, cosine, look.targets, self.others) if share < 1 else 0
        if read and look.hidden:
            of_hidden = 1 - best_match(read.states, look.hidden.states, read.words, look.hidden.words)
            losses = share * of_hidden + (1 - share) * losses
        similarities = cosine.detach()
        return (losses * look.weights).sum(-1), similarities[:, 0], (similarities * look.composed).sum(-1)

    def is_due(self) -> bool:
        """Whether the members have to be looked at: at fixed steps, so that the same seed stops at the same one."""
        if not self.members:
            return False
        if self.clock % CHECK_STEPS == 0 or any(member.step == member.config.steps for member in self.members):
            return True
        # on the cpu nothing has to be waited for, and one that stops at a similarity may do so after a dozen steps
        return self.encoder.device.type == "cpu" and bool((self.descent.tensors["best_reached"] >= self._limits).any())

    def check(self) -> None:
        """Reads the device, and says of the members that are over by their own rules why they are `stopped`."""
        self.read_back(self.members)
        for member in self.members:
            self._decide(member)

    def read_back(self, wanted: Sequence[Member]) -> None:
        """Brings members' figures up to this step. Waits for the device."""
        figures, at = self.descent.read(), 0
        for member in self.members:
            rows = slice(at, at + member.config.restarts)
            at = rows.stop
            if member not in wanted:
                continue
            member.at = Figures(*(values[rows] for values in figures))
            new = member.step - member.read_to
            if new:
                places = [(self.clock - new + i) % CHECK_STEPS for i in range(new)]
                member.history.append(member.at.window[:, places].permute(1, 2, 0))
                member.read_to = member.step

    def _decide(self, member: Member) -> None:
        config, at = member.config, member.at
        if bool(member.history[-1][-1, 0].isnan().all()):
            member.stopped = "failed"
            member.failure = f"the loss stopped being a number by step {member.step}: try a rate below {config.rate:g}"
        elif config.stop_at is not None and float(at.best_reached[member.leader]) >= config.stop_at:
            member.stopped = "stop_at"
        elif config.patience is not None and member.step - 1 - int(at.last_fall.max()) >= config.patience:
            member.stopped = "patience"
        elif member.step >= config.steps:
            member.stopped = "steps"

    def states(self) -> dict[str, TrainState]:
        """Where all members are, by their keys. Waits for the device."""
        self.read_back(self.members)
        return {member.key: self.state(member) for member in self.members}

    def state(self, member: Member) -> TrainState:
        """Where a member is, right after `check`. Waits for the device."""
        at = sum(one.config.restarts for one in self.members[: self.members.index(member)])
        tensors = self.descent.taken(slice(at, at + member.config.restarts), member.tokens)
        tensors["history"] = member.figures().clone()
        return TrainState(member.step, member.seconds, member.tokens, tensors)


def check_tokens(encoder: TextEncoder, tokens: int) -> None:
    """Raises ConfigError for more soft tokens than the context has room for."""
    if tokens > encoder.room:
        raise too_many(tokens, encoder.name, encoder.room)


def _groups(encoder: TextEncoder, contexts: Sequence[str]) -> list[list[str]]:
    """The contexts in as many groups as take turns. Those of a group have ends of like length: rows are as long as the longest."""
    count = max(1, min(GROUPS, len(contexts)))
    ordered = sorted(contexts, key=lambda context: len(encoder.tokenizer.encode(split_context(context)[1])))
    return [ordered[len(ordered) * i // count : len(ordered) * (i + 1) // count] for i in range(count)]


def _joined(reads: Sequence[tuple[Read, int]]) -> Read | None:
    """What members read of their hard prompts, each as often as it has rows: states (R, b, n, w), n being the longest's."""
    if not reads:
        return None
    longest = max(read.words.shape[-1] for read, _ in reads)
    states, words, outputs = [], [], []
    for read, r in reads:
        missing = longest - read.words.shape[-1]
        states.append(F.pad(read.states, (0, 0, 0, missing)).expand(r, -1, -1, -1))
        words.append(F.pad(read.words, (0, missing)).expand(r, -1, -1))
        outputs.append(read.outputs.expand(r, -1, -1))
    return Read(torch.cat(outputs), torch.cat(states), torch.cat(words))
