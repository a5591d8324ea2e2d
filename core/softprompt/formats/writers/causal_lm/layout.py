"""The text around the soft tokens of a language model, as its chat template prints it.

Other programs tokenize this text themselves. An export is only right if they get the tokens of training.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast, get_args

from softprompt.config import Placement
from softprompt.encoders.base import encode_prompt
from softprompt.encoders.causal_lm.question_rows import LINE_BREAK, encode_around, template_digest
from softprompt.encoders.unattended import silent_transformers, unattended
from softprompt.errors import ExportRefused, describe_error_with_type
from softprompt.formats.writers.causal_lm.placement import trained_place

if TYPE_CHECKING:
    from softprompt.encoders.causal_lm.model import CausalLM
    from softprompt.prompts.soft_prompt import SoftPrompt

# questions whose first characters tokenizers like to merge with the text in front of them
PROBES = ("What is 2 + 2?", "the", '"a"', "- one\n- two", "雪は何色？")


@dataclass(frozen=True)
class ChatLayout:
    """The text of a chat around the soft tokens and around the question.

    Attributes:
        before: from the start to the soft tokens.
        shared: behind the soft tokens, up to the last special token in front of the question. Cutting the text there
            changes no token, so these tokens can be stored together with the soft tokens.
        between: from there to the question.
        after: from the question to where the answer begins.
    """

    before: str
    shared: str
    between: str
    after: str

    def rest(self, question: str) -> str:
        """Return the text behind `shared`, with a question in it."""
        return self.between + question.strip() + self.after

    def rows(self, model: CausalLM, question: str) -> tuple[list[int], list[int]]:
        """Return the token ids in front of the soft tokens and behind them.

        Raises PromptError if the question contains a special token.
        """
        encode_prompt(model.tokenizer, question)  # refuses special tokens
        encode = model.tokenizer.encode
        return encode(self.before), encode(self.shared) + encode(self.rest(question))


def find_layout(model: CausalLM, prompt: SoftPrompt) -> ChatLayout:
    """Return the text around a soft prompt of this model.

    Raises:
        ExportRefused: the soft prompt was trained in another chat template, or other programs would read the text of
            this one as other tokens.
        ConfigError: the soft prompt was trained on another model.
    """
    model.check_compatible(prompt)
    place = trained_place(prompt)
    name = prompt.name or "the soft prompt"
    if place.placement not in get_args(Placement):
        raise ExportRefused(
            f"{name} has the unknown placement {place.placement[:40]!r}. A newer version may know it; or train the "
            "prompt again."
        )
    placement = cast("Placement", place.placement)
    if place.template != (digest := template_digest(model, placement)):
        raise ExportRefused(
            f"{name} was trained in the chat template {place.template}, but {model.name} has {digest} here. "
            "Use the model's own template, or train the prompt again."
        )
    for layout in _layouts(model, placement):
        if all(layout.rows(model, probe) == encode_around(model, probe, placement) for probe in PROBES):
            return layout
    raise ExportRefused(
        f"other programs cannot read {name} in its placement, {place.placement}: in the chat template of "
        f"{model.name}, the text around the soft tokens has other tokens when it is tokenized piece by piece. Export "
        "the vectors alone, as numpy."
    )


def _layouts(model: CausalLM, placement: Placement) -> list[ChatLayout]:
    """Return possible layouts of a placement, those with the most stored tokens first."""
    if placement == "start":
        return [ChatLayout(model.tokenizer.decode(model.tokenizer.start), LINE_BREAK, "", "")]
    frame = model.chat_template.frame(placement)
    last = _last_special(model, frame.between)
    return [
        ChatLayout(frame.before, frame.between[:at], frame.between[at:], frame.after) for at in dict.fromkeys((last, 0))
    ]


def _last_special(model: CausalLM, text: str) -> int:
    """Return the index of the character where the last special token of a text starts, or 0."""
    pairs = zip(*model.tokenizer.encode_with_starts(text), strict=True)
    return max((start for token, start in pairs if token in model.tokenizer.special_ids), default=0)


def load_transformers_tokenizer(model: CausalLM) -> Any:
    """Load the tokenizer that AutoTokenizer gives, which the printed code uses. Raises ExportRefused."""
    from transformers import AutoTokenizer

    try:
        with silent_transformers(), unattended():
            return AutoTokenizer.from_pretrained(str(model.folder), trust_remote_code=False, local_files_only=True)
    except Exception as error:  # transformers and tokenizers raise errors of any type
        raise ExportRefused(
            f"transformers cannot load the tokenizer of {model.name}: {describe_error_with_type(error)}. Export the "
            "vectors alone, as numpy."
        ) from error


def check_tokens(tokenizer: Any, model: CausalLM, texts: Iterable[str]) -> None:
    """Raise ExportRefused unless transformers' tokenizer gives the token ids of training."""
    for text in texts:
        if list(tokenizer.encode(text, add_special_tokens=False)) != model.tokenizer.encode(text):
            raise ExportRefused(
                f"transformers' AutoTokenizer reads the chat template of {model.name} as other tokens than in "
                "training, so its answers would differ. Export the vectors alone, as numpy."
            )
