"""The tokenizer returns the same ids as open_clip, without importing torch or open_clip."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softprompt.encoders.clip.tokenizer import MAX_TEXT_LENGTH, Tokenizer
from softprompt.errors import PromptError

WORDS = (
    "the The THE lake sunrise naïve façade Ångström straße İstanbul ﬁne Ǆ ß don't they'll I'VE "
    "we're it's 'tis 12 3.14 1,000 50% £5 #tag\n"
    "@user e-mail a_b C++ &amp; &amp;amp; &lt;b&gt; &#39; &nbsp; &eacute; <start_of_text> "
    "<end_of_text> <END_OF_TEXT> </w> 日本語 中文 한국어 Привет مرحبا שלום\n"
    "हिन्दी ไทย 🙂 👩‍👩‍👧 🇫🇷 é é ™ … — “quoted” ‘single’ â€™ Ã© ﷽ \x1b[31m \x00 \u202e \u200b \ufeff "
    "\t \n \r\n ~~~ !!! ¿? []{}() [/bold] $%^ /// \\ _ __ ٣ Ⅷ ½ ²"
).split(" ")


def varied_texts(count: int) -> list[str]:
    rng = random.Random(7)
    ranges = [
        (0x20, 0x7F),
        (0xA0, 0x250),
        (0x370, 0x530),
        (0x600, 0x700),
        (0x3040, 0x3100),
        (0x4E00, 0x9FFF),
        (0x1F300, 0x1FAFF),
        (0, 0x20),
    ]

    def word() -> str:
        if rng.random() < 0.6:
            return rng.choice(WORDS)
        low, high = rng.choice(ranges)
        return "".join(chr(rng.randrange(low, high)) for _ in range(rng.randrange(1, 9)))

    return [rng.choice(["", " "]).join(word() for _ in range(rng.randrange(12))) for _ in range(count)]


@pytest.mark.parametrize("clean", ["lower", "whitespace", "canonicalize"])
def test_ids_equal_open_clips_on_10_000_varied_texts(clean: str) -> None:
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer, reference = Tokenizer(clean), SimpleTokenizer(clean=clean)
    texts = varied_texts(10_000 if clean == "lower" else 1_000)
    assert len(set(texts)) > 0.8 * len(texts)
    assert [text for text in texts if tokenizer.encode(text) != reference.encode(text)] == []


def test_extra_special_tokens_equal_open_clips() -> None:
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer, reference = Tokenizer(extra_special=["<extra>"]), SimpleTokenizer(additional_special_tokens=["<extra>"])
    text = "a <extra> fox <end_of_text>"
    assert tokenizer.encode(text) == reference.encode(text)
    assert len(tokenizer) == reference.vocab_size
    assert tokenizer.special_ids == set(reference.all_special_ids)


def test_decode_equals_open_clips() -> None:
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer, reference = Tokenizer(), SimpleTokenizer()
    for text in varied_texts(300):
        ids = [i for i in tokenizer.encode(text) if i not in tokenizer.special_ids]
        assert tokenizer.decode(ids) == reference.decode(ids)


def test_tokenizing_imports_neither_torch_nor_open_clip() -> None:
    code = (
        "import sys; from softprompt.encoders.clip.tokenizer import Tokenizer; Tokenizer().encode('a'); "
        "print(sorted({'torch', 'open_clip', 'numpy'} & set(sys.modules)))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


@given(st.text(max_size=200))
def test_every_text_has_ids_within_the_vocabulary(text: str) -> None:
    tokenizer = _tokenizer
    ids = tokenizer.encode(text)
    assert all(0 <= i < len(tokenizer) for i in ids)
    assert isinstance(tokenizer.decode(ids), str)


_tokenizer = Tokenizer()


@pytest.mark.parametrize(
    ("text", "message"), [("a" * (MAX_TEXT_LENGTH + 1), "200,001 characters"), ("b" * 5000, "word of 5,000 bytes")]
)
def test_a_text_that_would_take_minutes_is_rejected(text: str, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        _tokenizer.encode(text)


def test_a_piece_is_the_text_of_a_token() -> None:
    lake, end = _tokenizer.encode("lake")[0], _tokenizer.end
    assert _tokenizer.piece(lake) == "lake"
    assert _tokenizer.piece(end) == "<end_of_text>"
    assert _tokenizer.decode(_tokenizer.encode("A fox &amp; a LAKE")) == "a fox & a lake "
