"""Contexts for training and for grading: sentence templates with `{}` in place of the soft prompt.

The two lists share no content words, so that grading uses only words unseen in training. A test checks this.
"""

from __future__ import annotations

from softprompt.errors import ConfigError

PLACEHOLDER = "{}"

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
    """Raise ConfigError unless the context contains `{}` exactly once, along with other text."""
    if context.count(PLACEHOLDER) != 1 or not context.replace(PLACEHOLDER, "").strip():
        raise ConfigError(
            f"the context {context!r} must contain {PLACEHOLDER} exactly once, where the soft prompt goes, and other "
            "words. For example: 'a photo of {}'."
        )


def split_context(context: str) -> tuple[str, str]:
    """Return the text before and after the soft prompt."""
    before, after = context.split(PLACEHOLDER)
    return before.strip(), after.strip()
