"""Split text in any script into search terms. Case, accents and character width do not matter."""

from __future__ import annotations

import unicodedata

# scripts without spaces between words
_UNSPACED_SCRIPTS = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "THAI", "LAO", "KHMER", "MYANMAR")


def split_words(text: str) -> list[str]:
    """Return the words of a text. A pictograph counts as a word, as does each character of a script without spaces."""
    if text.isascii():
        return "".join(char if char.isalnum() else " " for char in text.lower()).split()
    words: list[str] = []
    current = ""
    for char in unicodedata.normalize("NFKD", text).casefold():
        kind = unicodedata.category(char)
        if kind == "Mn":  # an accent
            continue
        is_word = kind == "So" or (kind == "Lo" and unicodedata.name(char, "").startswith(_UNSPACED_SCRIPTS))
        if kind[0] in "LNM" and not is_word:
            current += char
            continue
        words.append(current)
        current = ""
        if is_word:
            words.append(char)
    return [word for word in (*words, current) if word]
