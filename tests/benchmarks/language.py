"""Compress six system prompts for a language model, and grade them on held-out questions.

    python -m tests.benchmarks.language [--model smollm2-q4] [--only NAME] [--tokens 16] [--steps N] [--seed 0]

Prints for each prompt: KL per token and agreement of the soft prompt, of its floors (no prompt, first tokens, first
sentence), the share of equal answers, and the seconds of sampling, training and grading. For the prompt with labels,
also the share of right labels, and for the one with facts, the share of right answers. `--own` trains on the prompt's
own questions instead of the built-in ones, and `--self-study N` on N more that the model writes itself.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

from softprompt.config import Placement, TrainConfig, config_for
from softprompt.encoders.causal_lm.model import CausalLM
from softprompt.encoders.loading import load_model
from softprompt.evaluation.answers import fact_share
from softprompt.objectives.workspace import Workspace
from softprompt.prompts.soft_prompt import SoftPrompt
from softprompt.training.trainer import iter_train

ANSWER_TOKENS = {"labels": 2, "facts": 24}  # a text goes on behind its label, with others
FOLDER = Path(__file__).parent / "language_prompts"


class Stopwatch(Workspace):
    """Measures how long the stages of a run take."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.seconds: dict[str, float] = {}
        self.stage = "sampling"

    def post_stage(self, stage: str) -> None:
        self.enter("grading" if stage.startswith(("grading", "answering")) else "sampling")

    def enter(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[self.stage] = self.seconds.get(self.stage, 0.0) + now - self.began
        self.began, self.stage = now, stage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-q4")
    parser.add_argument("--only", default="", help="names of prompts, separated by commas")
    parser.add_argument("--tokens", default="16", help="token counts, separated by commas")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", default="0", help="seeds, separated by commas")
    parser.add_argument("--rate", type=float)
    parser.add_argument("--own", action="store_true")
    parser.add_argument("--self-study", type=int, default=0)
    options = parser.parse_args()
    model = load_model(options.model, "cpu")
    assert isinstance(model, CausalLM)
    names = options.only.split(",") if options.only else [path.stem for path in sorted(FOLDER.glob("*.json"))]
    for name in names:
        texts = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
        for tokens in map(int, options.tokens.split(",")):
            for seed in map(int, options.seed.split(",")):
                settings: dict[str, Any] = {"tokens": tokens, "seed": seed, "self_study": options.self_study}
                settings |= {key: value for key in ("steps", "rate") if (value := getattr(options, key)) is not None}
                settings |= {"placement": texts["placement"]} if "placement" in texts else {}
                if options.own:
                    settings["questions"] = texts["questions"]
                report(model, name, texts, config_for("causal", settings))


def report(model: CausalLM, name: str, texts: dict[str, Any], config: TrainConfig) -> None:
    """Train one prompt and print its figures."""
    watch = Stopwatch()
    prompt = None
    for progress in iter_train(model, texts["prompt"], config, interval=1, workspace=watch):
        watch.enter("training")
        prompt = progress.result or prompt
    watch.enter("")
    assert prompt is not None
    answers = prompt.answers
    assert answers is not None
    floors = "  ".join(f"{key} {score.kl:.3f} ({score.agreement:.2f})" for key, score in answers.floors.items())
    seconds = "  ".join(
        f"{stage} {watch.seconds.get(stage, 0.0):.0f} s" for stage in ("sampling", "training", "grading")
    )
    print(
        f"{name:8} k {config.tokens:2} seed {config.seed}: KL {answers.score.kl:.3f} ({answers.score.agreement:.2f}), "
        f"{answers.kl_share:.2f} of the floor; {floors}; equal answers {answers.equal_answers:.2f}; "
        f"training KL {prompt.loss:.3f}; {seconds}",
        flush=True,
    )
    for kind, pairs in (("labels", _labels(texts)), ("facts", _facts(texts))):
        if pairs:
            shares = _shares(model, texts["prompt"], prompt, pairs, config.placement, ANSWER_TOKENS[kind])
            print(f"         {kind} right: {shares}", flush=True)


def _labels(texts: dict[str, Any]) -> list[tuple[str, str]]:
    return [(item["input"], item["label"]) for item in texts.get("items", ())]


def _facts(texts: dict[str, Any]) -> list[tuple[str, str]]:
    return [(fact["question"], fact["answer"]) for fact in texts.get("facts", ())]


def _shares(
    model: CausalLM, text: str, prompt: SoftPrompt, pairs: list[tuple[str, str]], placement: Placement, max_tokens: int
) -> str:
    share = partial(fact_share, model, pairs, placement=placement, max_tokens=max_tokens)
    shares = {
        "hard prompt": share(prompt=text),
        "soft prompt": share(vectors=prompt.vectors),
        "no prompt": share(),
    }
    return "  ".join(f"{name} {share:.3f}" for name, share in shares.items())


if __name__ == "__main__":
    main()
