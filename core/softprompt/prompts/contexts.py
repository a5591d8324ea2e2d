"""Sentences around a soft prompt: those it is trained inside, and those its composition fidelity is graded in.

`{}` stands for the soft prompt. A test holds that the two lists share no content word, so that grading asks for what
training has not shown.
"""

from __future__ import annotations

from softprompt.errors import ConfigError

SLOT = "{}"

TRAINING_CONTEXTS = (
    "a photo of {}",
    "{} in winter",
    "{} next to a dog",
    "a pencil drawing of {} on old paper",
    "{}, dramatic mood, 4k",
    "people walking past {}",
    "a toy model of {}",
    "{} during a thunderstorm, cinematic",
    "i dream of {} every summer",
    "the history of {}",
    "neon poster with {} and a guitar",
    "{} on the surface of mars",
    "{} carved in stone",
    "black and white film still of {}",
    "{} beside three yellow bicycles",
    "an enormous {}",
)

GRADING_CONTEXTS = (
    "{} mountain view",
    "{}, in the style of van gogh",
    "{} at night",
    "{} with a red car",
    "oil painting of {}, highly detailed",
    "a child's crayon picture showing {}",
    "{} seen through a rainy window",
    "{} and a sleeping cat",
    "an abandoned {}",
    "{}, 1970s polaroid",
    "cross-stitch of {}",
    "{} made of glass",
    "a newspaper front page about {}",
    "{} under the northern lights",
)


def check_context(context: str) -> None:
    """Raises ConfigError unless the context holds `{}` exactly once, and words beside it."""
    if context.count(SLOT) != 1 or not context.replace(SLOT, "").strip():
        raise ConfigError(f"the context {context!r} must hold {SLOT} once, for the soft prompt, and words beside it")


def split_context(context: str) -> tuple[str, str]:
    """The words before the soft prompt, and those after it."""
    before, after = context.split(SLOT)
    return before.strip(), after.strip()
