"""Export soft prompts of language models: check that the format can hold them, write the files, and give the code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softprompt.encoders.catalog import resolve
from softprompt.encoders.causal_lm.chat_template import read_chat_template
from softprompt.encoders.causal_lm.folder import check_folder
from softprompt.errors import ExportRefused, option
from softprompt.formats.writers import encode
from softprompt.formats.writers.causal_lm import files, instructions
from softprompt.formats.writers.causal_lm.layout import (
    PROBES,
    ChatLayout,
    check_tokens,
    find_layout,
    load_transformers_tokenizer,
)
from softprompt.formats.writers.causal_lm.placement import trained_place
from softprompt.formats.writers.files import write_file, write_folder
from softprompt.formats.writers.programs import LANGUAGE_MODEL_PROGRAMS
from softprompt.prompts.soft_prompt import SoftPrompt

if TYPE_CHECKING:
    from softprompt.encoders.causal_lm.model import CausalLM

DTYPES = ("bfloat16", "float16", "float32")
SERVERS = ("vllm", "sglang")
# Gemma multiplies its token embeddings by a constant, and these programs do so in other places than transformers
UNSCALED = ("peft-tokens", *SERVERS)


@dataclass(frozen=True)
class Written:
    """What was written, the code that uses it, and notes about it."""

    paths: tuple[Path, ...]
    code: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Export:
    """A soft prompt on its way into a file.

    Attributes:
        target: the file or folder to write.
        source: what other programs call the model: its name on the hub, or its folder.
    """

    prompt: SoftPrompt
    target: Path
    model: CausalLM
    layout: ChatLayout
    source: str

    @property
    def name(self) -> str:
        return self.prompt.name or "the soft prompt"

    def write_vectors(self, force: bool) -> Written:
        self._check_tokens()
        write_file(self.target, encode.safetensors(self.prompt), force)
        code = instructions.transformers_code(self.target, self.model, self.layout, self.source)
        return Written((self.target,), code, instructions.notes("transformers", self.prompt))

    def write_peft(self, force: bool) -> Written:
        self._check_tokens()
        folder = files.peft(self.prompt, self.model, self.layout, self.source)
        write_folder(self.target, folder, force)
        code = instructions.peft_code(self.target, self.model, self.layout, self.source)
        return Written(tuple(self.target / name for name in folder), code, instructions.notes("peft", self.prompt))

    def write_peft_tokens(self, force: bool) -> Written:
        tokenizer = self._check_tokens()
        folder, words, ids = files.peft_tokens(self.prompt, self.model, tokenizer, self.source)
        for probe in PROBES:
            before, after = self.layout.rows(self.model, probe)
            text = self.layout.before + "".join(words) + self.layout.shared + self.layout.rest(probe)
            if list(tokenizer.encode(text, add_special_tokens=False)) != [*before, *ids, *after]:
                raise ExportRefused(
                    f"new tokens cannot take the place of {self.name}: with them in the text, {self.model.name} reads "
                    "the text behind as other tokens than in training. Use the format peft or transformers."
                )
        write_folder(self.target, folder, force)
        code = instructions.peft_tokens_code(self.target, self.model, self.layout, self.source, words, ids)
        notes = instructions.notes("peft-tokens", self.prompt)
        return Written(tuple(self.target / name for name in folder), code, notes)

    def write_sglang(self, question: str, force: bool) -> Written:
        rows = files.whole_rows(self.prompt, self.model, self.layout, question)
        write_file(self.target, files.sglang(rows, self.model), force)
        code = instructions.request_code(self.target, instructions.SGLANG_URL, 'reply["text"]')
        notes = (*instructions.notes("sglang", self.prompt), *instructions.sglang_notes(self.source))
        return Written((self.target,), code, notes)

    def write_vllm(self, question: str, dtype: str, force: bool) -> Written:
        prints_date = False
        if question:
            rows = files.whole_rows(self.prompt, self.model, self.layout, question)
            data = files.vllm_completion(rows, self.model, self.source, dtype)
            code = instructions.request_code(self.target, instructions.VLLM_COMPLETIONS_URL, instructions.VLLM_TEXT)
        else:
            if not self.model.chat_template.has_system_turn:
                raise _needs_question(
                    f"the chat template of {self.model.name} has no system turn, which vLLM's chat route needs"
                )
            template = read_chat_template(self.model.name, self.model.folder)
            prints_date = "strftime_now" in template
            options = {"chat_template_kwargs": {"enable_thinking": False}} if "enable_thinking" in template else {}
            data = files.vllm_chat(self.prompt, self.model, self.source, instructions.EXAMPLE_QUESTION, dtype, options)
            code = instructions.request_code(
                self.target, instructions.VLLM_CHAT_URL, instructions.VLLM_MESSAGE, question=True
            )
        write_file(self.target, data, force)
        more = instructions.vllm_notes(self.source, dtype, is_chat=not question, prints_date=prints_date)
        return Written((self.target,), code, (*instructions.notes("vllm", self.prompt), *more))

    def _check_tokens(self) -> Any:
        """Return transformers' tokenizer. Raises ExportRefused unless the code's texts have the tokens of training."""
        tokenizer = load_transformers_tokenizer(self.model)
        rests = [self.layout.rest(probe) for probe in PROBES]
        check_tokens(
            tokenizer, self.model, [self.layout.before, *rests, *(self.layout.shared + rest for rest in rests)]
        )
        return tokenizer


def check_options(prompt: SoftPrompt, to: str, question: str, dtype: str) -> None:
    """Raise ExportRefused if a program cannot use a language model's soft prompt with these options."""
    if question and to not in SERVERS:
        raise ExportRefused(f"{option('question')} only works with {' and '.join(SERVERS)}. Leave it out.")
    if dtype and (to != "vllm" or dtype not in DTYPES):
        raise ExportRefused(
            f"{option('dtype', dtype[:40])} cannot be used: it only works with vllm, as {', '.join(DTYPES)}."
        )
    if to == "sglang" and not question:
        raise _needs_question("SGLang reads a whole chat")
    placement = trained_place(prompt).placement
    if to == "vllm" and not question and placement != "system":  # the server adds the chat template itself
        name = prompt.name or "the soft prompt"
        raise _needs_question(f"{name} has the placement {placement[:40]}, which vLLM's chat route cannot hold")


def write(
    prompt: SoftPrompt, to: str, target: Path, model: CausalLM, *, question: str, dtype: str, force: bool
) -> Written:
    """Write a soft prompt for a program that needs the model.

    Raises:
        ExportRefused: the format cannot hold it, or the files cannot be written.
        ConfigError: the soft prompt belongs to another model.
        PromptError: the question contains a special token.
    """
    source = resolve(model.name).repository or str(model.folder)
    export = _Export(prompt, target, model, find_layout(model, prompt), source)
    _check_family(to, model)
    match to:
        case "transformers":
            return export.write_vectors(force)
        case "peft":
            return export.write_peft(force)
        case "peft-tokens":
            return export.write_peft_tokens(force)
        case "sglang":
            return export.write_sglang(question, force)
        case _:
            return export.write_vllm(question, dtype or DTYPES[0], force)


def _needs_question(reason: str) -> ExportRefused:
    return ExportRefused(
        f"{reason}. Use {option('question', 'TEXT')} to write a request for one question, or the format transformers, "
        "whose code embeds any question."
    )


def _check_family(to: str, model: CausalLM) -> None:
    """Raise ExportRefused for families whose embeddings these programs treat in another way."""
    config = check_folder(model.name, model.folder).config
    kind = str(config["model_type"])
    is_projected = model.width != config.get("hidden_size", config.get("n_embd", model.width))
    if (to in UNSCALED and kind.startswith("gemma")) or (to in SERVERS and is_projected):
        raise ExportRefused(
            f"{LANGUAGE_MODEL_PROGRAMS[to].title} cannot use {model.name} in this format: {kind} "
            f"{'projects' if is_projected else 'scales'} its token embeddings inside the model. Use the format "
            "transformers or peft."
        )
