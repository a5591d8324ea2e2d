"""Words of any script in the form in which they are searched for: case, accents and width do not matter."""

from __future__ import annotations

import unicodedata

_ONE_BY_ONE = (
    "CJK",
    "HIRAGANA",
    "KATAKANA",
    "HANGUL",
    "THAI",
    "LAO",
    "KHMER",
    "MYANMAR",
)  # written without spaces between words


def words(text: str) -> list[str]:
    """The words of a text; of scripts without spaces, and of pictures, each character is one."""
    if text.isascii():
        return "".join(char if char.isalnum() else " " for char in text.lower()).split()
    out: list[str] = []
    word = ""
    for char in unicodedata.normalize("NFKD", text).casefold():
        kind = unicodedata.category(char)
        if kind == "Mn":  # an accent
            continue
        alone = kind == "So" or (kind == "Lo" and unicodedata.name(char, "").startswith(_ONE_BY_ONE))
        if kind[0] in "LNM" and not alone:
            word += char
            continue
        out.append(word)
        word = ""
        if alone:
            out.append(char)
    return [found for found in (*out, word) if found]
