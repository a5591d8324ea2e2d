"""What a training minimises, as training sees it."""

from __future__ import annotations

from dataclasses import dataclass

from softprompt.prompts.lineage import Meaning


@dataclass(frozen=True)
class HardPrompt:
    """A hard prompt made ready for one model: the user's text, and its tokens in as many pieces as the context asks for.

    `dropped` is the end of the text where it was cut, or empty. One that means several texts together has them, with their shares, as
    `variants`: its own text is for people to read, and its pieces are all of theirs.
    """

    text: str
    pieces: tuple[tuple[int, ...], ...]
    dropped: str = ""
    variants: tuple[tuple[float, HardPrompt], ...] = ()

    @property
    def tokens(self) -> int:
        """Of the longest of its variants, where it has any."""
        return max((one.tokens for _, one in self.variants), default=sum(map(len, self.pieces)))

    @property
    def meanings(self) -> tuple[Meaning, ...]:
        return tuple(Meaning(one.text, share) for share, one in self.variants)
