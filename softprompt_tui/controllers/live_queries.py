"""What is asked while one types: how many tokens the prompt takes, what the composition means, which models there are."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from softprompt.errors import SoftPromptError
from softprompt.worker import protocol as p
from softprompt_tui.state.settings import USUAL_MODEL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from softprompt.prompts.syntax import SyntaxSpan
    from softprompt_tui.app_context import AppContext
    from softprompt_tui.services.token_count import Count
    from softprompt_tui.services.worker import MeasuredComposition

COUNT_AFTER, COMPOSE_AFTER = 0.05, 0.15  # seconds: keys that follow each other are asked about once


class Counted(NamedTuple):
    """A prompt's tokens, None where its model is not counted for, and the syntax in it."""

    tokens: Count | None
    syntax: Sequence[SyntaxSpan]


class LiveQueries:
    """Each is asked anew when what it is about changes; the answer to an older one is not waited for."""

    def __init__(self, context: AppContext) -> None:
        self.context = context

    def count(self, text: str, model: str, tell: Callable[[Counted], None]) -> None:
        """Count the tokens of what stands in the editor."""
        self.context.spawn(partial(self._count, text, model or USUAL_MODEL, tell), group="count", exclusive=True)

    async def _count(self, text: str, model: str, tell: Callable[[Counted], None]) -> None:
        from softprompt.prompts.syntax import find_syntax
        from softprompt_tui.services.token_count import count

        await asyncio.sleep(COUNT_AFTER)
        tell(Counted(*await asyncio.to_thread(lambda: (count(text, model), find_syntax(text)))))

    def compose(
        self,
        composition: str,
        against: str,
        model: str,
        device: str,
        opened: str,
        tell: Callable[[MeasuredComposition | None, str], None],
    ) -> None:
        """Ask what a composition means on the chosen model, beside any text that it is held `against`."""
        work = partial(self._compose, composition, against, model, device, opened, tell)
        self.context.spawn(work, group="similarity", exclusive=True)

    async def _compose(
        self,
        composition: str,
        against: str,
        model: str,
        device: str,
        opened: str,
        tell: Callable[[MeasuredComposition | None, str], None],
    ) -> None:
        await asyncio.sleep(COMPOSE_AFTER)
        if not composition.strip():
            tell(None, "")
            return
        texts = [composition] + [literal(against)] * bool(against.strip())
        try:
            tell(await self.context.worker.composed(model or USUAL_MODEL, texts, device or "auto", opened), "")
        except SoftPromptError as error:
            tell(None, str(error))

    def list_models(self, tell: Callable[[list[str]], None]) -> None:
        """Find the names of the models that can be trained for, where that takes no seconds."""
        self.context.spawn(partial(self._models, tell), group="models")

    async def _models(self, tell: Callable[[list[str]], None]) -> None:
        from softprompt.encoders.catalog import is_kept, list_models

        if is_kept():  # else the list would have to be read from open_clip, which takes 5-8 s
            infos = await asyncio.to_thread(list_models)
            tell([info.name for info in infos if not info.refused])

    def warm(self, device: str) -> None:
        """Let the worker load the built-in model, so that the first training begins at once. Others are large: they wait until they are meant."""
        self.context.spawn(partial(self._warm, device or "auto"), group="warm")

    async def _warm(self, device: str) -> None:
        with suppress(SoftPromptError):
            await self.context.worker.ask(p.Similarity(USUAL_MODEL, ["warm"], device))


def literal(text: str) -> str:
    """Text in which no bracket stands for a soft prompt."""
    return re.sub(r"[\\\[\]]", r"\\\g<0>", text)
