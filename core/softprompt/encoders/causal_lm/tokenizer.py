"""A causal language model's tokenizer, through the tokenizers library."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softprompt.encoders.base import SpecialTokens
from softprompt.encoders.causal_lm.folder import TOKENIZER_CONFIG_FILE, causal_lm_refused
from softprompt.encoders.model_folder import read_json
from softprompt.encoders.unattended import silent_transformers, unattended
from softprompt.errors import ModelRefused, ModelUnavailable, PromptError, describe_error_with_type

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER_FILE = "tokenizer.json"
ROLES = ("bos_token", "eos_token", "pad_token", "unk_token")  # the special tokens that a configuration names
MAX_TEXT_LENGTH = 1_000_000  # characters


class CausalLMTokenizer:
    """The tokenizer of a causal language model.

    Args:
        tokenizer: truncation and padding are switched off in it.
        config: the contents of tokenizer_config.json.

    Attributes:
        roles: the text of the special tokens that the configuration names, by role, such as `bos_token`.
        start: the ids that the tokenizer puts in front of every text.
    """  # implements encoders.base.PromptTokenizer

    def __init__(self, tokenizer: Tokenizer, config: dict[str, Any]) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = False  # the text of a special token becomes that token
        self._tokenizer = tokenizer
        self.roles = {role: text for role in ROLES if (text := _token_text(config.get(role)))}
        special = {i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        self.special_ids = frozenset(special | {i for role in self.roles if (i := self.role_id(role)) is not None})
        # the unknown token replaces characters that are not in the vocabulary; GPT-2's is its end token, and does not
        unknown = {self.role_id("unk_token")} - {self.role_id(role) for role in ROLES[:3]}
        self.reserved_ids = self.special_ids - unknown
        self._ids = sorted(tokenizer.get_vocab(with_added_tokens=True).values())
        self._length = max((i for i in self._ids if i not in self.reserved_ids), default=-1) + 1
        self.start = self._find_start(config.get("add_bos_token"))

    def __len__(self) -> int:
        return self._length

    @cached_property
    def ordinary_ids(self) -> list[int]:
        """The ids of the tokens that text can produce, without special tokens and gaps in the vocabulary."""
        return [i for i in self._ids if i not in self.special_ids]

    def role_id(self, role: str) -> int | None:
        """Return the id of the special token with this role, or None if there is none."""
        text = self.roles.get(role)
        token: int | None = None if text is None else self._tokenizer.token_to_id(text)
        return token

    def special_tokens(self, end_ids: Iterable[int], rows: int) -> SpecialTokens:
        """Return the tokens that start a text, those that end an answer, and the padding token.

        Args:
            end_ids: tokens that end an answer. The tokenizer's own end token is added to them.
            rows: number of the model's token embeddings. Many tokenizers have a padding token without an embedding.
        """
        eos, pad = self.role_id("eos_token"), self.role_id("pad_token")
        end = tuple(dict.fromkeys([*end_ids, *([] if eos is None else [eos])]))
        return SpecialTokens(self.start, end, pad if pad is not None and pad < rows else end[0] if end else 0)

    def _find_start(self, adds_start: object) -> tuple[int, ...]:
        """Return the ids that the tokenizer puts in front of every text.

        Args:
            adds_start: the setting add_bos_token. transformers replaces tokenizer.json's own template by it.
        """
        if isinstance(adds_start, bool):
            bos = self.role_id("bos_token")
            return (bos,) if adds_start and bos is not None else ()
        plain, full = self.encode("a"), list(self._tokenizer.encode("a").ids)
        for at in range(len(full) - len(plain) + 1):
            if full[at : at + len(plain)] == plain:
                return tuple(full[:at])
        return ()

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text, without start and end tokens and without truncation.

        Raises:
            PromptError: the text is too long to tokenize.
        """
        return self.encode_with_starts(text)[0]

    def encode_with_starts(self, text: str) -> tuple[list[int], list[int]]:
        """Do the same as `encode`, and also return the index of each token's first character in the text."""
        if len(text) > MAX_TEXT_LENGTH:
            raise PromptError(f"the text has {len(text):,} characters; at most {MAX_TEXT_LENGTH:,} can be tokenized")
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        return list(encoding.ids), [start for start, _ in encoding.offsets]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of token ids. Special tokens appear by name, invalid UTF-8 as U+FFFD."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))

    def piece(self, token: int) -> str:
        """Return the text of one token."""
        return self.decode([token])


def _token_text(value: object) -> str:
    """Return the text of a special token as tokenizer_config.json spells it: a string, or an object with `content`."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else ""


def read_tokenizer_config(folder: Path) -> dict[str, Any]:
    """Return the contents of tokenizer_config.json, or {} if there is none that can be read."""
    try:
        value = read_json(folder / TOKENIZER_CONFIG_FILE)
    except (OSError, ValueError):  # the file is optional
        return {}
    return value if isinstance(value, dict) else {}


def load_tokenizer(name: str, folder: Path) -> CausalLMTokenizer:
    """Load the tokenizer of a model folder: its tokenizer.json, or what transformers builds from its other files.

    Raises:
        ModelUnavailable: there is no tokenizer, or it is broken.
        ModelRefused: it is not one of the tokenizers library.
    """
    try:
        tokenizer = _read_tokenizer(name, folder)
        if not tokenizer.ordinary_ids:  # what transformers gives for a folder without a tokenizer
            raise ValueError("it has no tokens")
    except ModelRefused:
        raise
    except Exception as error:  # the tokenizers library raises plain Exception, and transformers errors of any type
        raise ModelUnavailable(
            f"the tokenizer of {name} cannot be loaded: {describe_error_with_type(error)}. Put a {TOKENIZER_FILE} into "
            f"{folder}."
        ) from error
    return tokenizer


def _read_tokenizer(name: str, folder: Path) -> CausalLMTokenizer:
    config = read_tokenizer_config(folder)
    if (folder / TOKENIZER_FILE).is_file():
        from tokenizers import Tokenizer

        return CausalLMTokenizer(Tokenizer.from_file(str(folder / TOKENIZER_FILE)), config)
    from transformers import AutoTokenizer

    with silent_transformers(), unattended():
        loaded = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    backend = getattr(loaded, "backend_tokenizer", None)
    if backend is None:
        raise causal_lm_refused(
            name,
            f"its tokenizer, {type(loaded).__name__}, is not one of the tokenizers library",
            f"Choose a version of the model with {TOKENIZER_FILE}",
        )
    return CausalLMTokenizer(backend, {role: getattr(loaded, role, None) for role in ROLES} | config)
