"""The tokenizer gives open_clip's own ids, without torch and without importing open_clip."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softprompt.encoders.clip.tokenizer import MAX_TEXT_LENGTH, Tokenizer
from softprompt.errors import PromptError

WORDS = """the The THE lake sunrise naïve façade Ångström straße İstanbul ﬁne Ǆ ß don't they'll I'VE we're it's 'tis 12 3.14 1,000 50% £5 #tag
@user e-mail a_b C++ &amp; &amp;amp; &lt;b&gt; &#39; &nbsp; &eacute; <start_of_text> <end_of_text> <END_OF_TEXT> </w> 日本語 中文 한국어 Привет مرحبا שלום
हिन्दी ไทย 🙂 👩‍👩‍👧 🇫🇷 é é ™ … — “quoted” ‘single’ â€™ Ã© ﷽ \x1b[31m \x00 \u202e \u200b \ufeff \t \n \r\n ~~~ !!! ¿? []{}() [/bold] $%^ /// \\ _ __ ٣ Ⅷ ½ ²""".split(
    " "
)


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
def test_the_ids_are_open_clips_on_10_000_varied_texts(clean: str) -> None:
    from open_clip.tokenizer import SimpleTokenizer

    ours, theirs = Tokenizer(clean), SimpleTokenizer(clean=clean)
    texts = varied_texts(10_000 if clean == "lower" else 1_000)
    assert len(set(texts)) > 0.8 * len(texts)
    assert [text for text in texts if ours.encode(text) != theirs.encode(text)] == []


def test_extra_special_tokens_are_open_clips() -> None:
    from open_clip.tokenizer import SimpleTokenizer

    ours, theirs = Tokenizer(extra_special=["<extra>"]), SimpleTokenizer(additional_special_tokens=["<extra>"])
    text = "a <extra> fox <end_of_text>"
    assert ours.encode(text) == theirs.encode(text)
    assert len(ours) == theirs.vocab_size
    assert ours.special_ids == set(theirs.all_special_ids)


def test_decode_is_open_clips() -> None:
    from open_clip.tokenizer import SimpleTokenizer

    ours, theirs = Tokenizer(), SimpleTokenizer()
    for text in varied_texts(300):
        ids = [i for i in ours.encode(text) if i not in ours.special_ids]
        assert ours.decode(ids) == theirs.decode(ids)


def test_it_needs_neither_torch_nor_open_clip() -> None:
    code = "import sys; from softprompt.encoders.clip.tokenizer import Tokenizer; Tokenizer().encode('a'); print(sorted({'torch', 'open_clip', 'numpy'} & set(sys.modules)))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


@given(st.text(max_size=200))
def test_any_text_gives_ids_of_the_vocabulary(text: str) -> None:
    tokenizer = _tokenizer
    ids = tokenizer.encode(text)
    assert all(0 <= i < len(tokenizer) for i in ids)
    assert isinstance(tokenizer.decode(ids), str)


_tokenizer = Tokenizer()


@pytest.mark.parametrize(
    ("text", "said"), [("a" * (MAX_TEXT_LENGTH + 1), "200,001 characters"), ("b" * 5000, "word of 5,000 bytes")]
)
def test_a_text_that_would_take_minutes_is_refused(text: str, said: str) -> None:
    with pytest.raises(PromptError, match=said):
        _tokenizer.encode(text)


def test_pieces_show_what_a_token_is() -> None:
    lake, end = _tokenizer.encode("lake")[0], _tokenizer.end
    assert _tokenizer.piece(lake) == "lake"
    assert _tokenizer.piece(end) == "<end_of_text>"
    assert _tokenizer.decode(_tokenizer.encode("A fox &amp; a LAKE")) == "a fox & a lake "
