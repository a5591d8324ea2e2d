"""Describe how a language model answers with a soft prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softprompt_tui.rendering.numbers import format_number

if TYPE_CHECKING:
    from softprompt.prompts.results import AnswerFidelity, AnswerScore

PLACEMENTS = {
    "system": "in place of the system text",
    "user": "before the user's text",
    "start": "before a plain text, without a template",
}
WORDS_NOTE = "the nearest words mostly show where training began"


def describe_answers(answers: AnswerFidelity) -> list[tuple[str, str]]:
    """Return (label, value) rows: the figures of a soft prompt on held-out questions, and those of the floors."""
    floors = "  ".join(f"{name} {_describe_score(score)}" for name, score in answers.floors.items())
    share = format_number(answers.kl_share) if answers.floor > 0 else "unknown"
    rows = [
        ("KL", f"{_describe_score(answers.score)} on {answers.questions} held-out questions; {share} of the floor"),
        ("floors", floors),
        ("placement", describe_place(answers.placement, answers.template)),
    ]
    if answers.equal_answers is not None:
        kept = "" if answers.kept_answers is None else f"; unchanged where the prompt changes nothing: " \
            f"{answers.kept_answers:.0%}"  # fmt: skip
        rows.append(("answers", f"{answers.equal_answers:.0%} of {len(answers.samples)} equal{kept}"))
    return rows


def describe_place(placement: str, template: str) -> str:
    """Return where the soft tokens stand. Without a chat template, `template` is ""."""
    place = PLACEMENTS.get(placement, placement)
    return f"{place}; template {template}" if template else place


def _describe_score(score: AnswerScore) -> str:
    return f"{format_number(score.kl)} (agreement {format_number(score.agreement)})"
