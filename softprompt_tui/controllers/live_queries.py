"""Queries that run while the user is typing: the token count, the measured composition, and the list of models."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from softprompt.errors import SoftPromptError
from softprompt.worker import protocol as p
from softprompt_tui.state.settings import DEFAULT_MODEL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from softprompt.prompts.syntax import SyntaxSpan
    from softprompt_tui.app_context import AppContext
    from softprompt_tui.services.token_count import TokenCount
    from softprompt_tui.services.worker import MeasuredComposition

COUNT_DELAY_SECONDS, COMPOSE_DELAY_SECONDS = 0.05, 0.15  # so that a burst of keys causes only one query


class PromptCount(NamedTuple):
    """A prompt's token count (None if the model's tokenizer is unknown) and the image-program syntax in it."""

    tokens: TokenCount | None
    syntax: Sequence[SyntaxSpan]


class LiveQueries:
    """Runs each query again when its input changes, and cancels the previous run of the query."""

    def __init__(self, context: AppContext) -> None:
        self.context = context

    def count(self, text: str, model: str, on_result: Callable[[PromptCount], None]) -> None:
        """Count the tokens of the text in the editor."""
        self.context.spawn(partial(self._count, text, model or DEFAULT_MODEL, on_result), group="count", exclusive=True)

    async def _count(self, text: str, model: str, on_result: Callable[[PromptCount], None]) -> None:
        await asyncio.sleep(COUNT_DELAY_SECONDS)
        from softprompt.prompts.syntax import find_syntax
        from softprompt_tui.services.token_count import count_tokens

        on_result(PromptCount(*await asyncio.to_thread(lambda: (count_tokens(text, model), find_syntax(text)))))

    def compose(
        self,
        composition: str,
        against: str,
        model: str,
        device: str,
        opened: str,
        on_result: Callable[[MeasuredComposition | None, str], None],
    ) -> None:
        """Measure a composition on the chosen model, and compare it with the text `against`, if any."""
        work = partial(self._compose, composition, against, model, device, opened, on_result)
        self.context.spawn(work, group="similarity", exclusive=True)

    async def _compose(
        self,
        composition: str,
        against: str,
        model: str,
        device: str,
        opened: str,
        on_result: Callable[[MeasuredComposition | None, str], None],
    ) -> None:
        await asyncio.sleep(COMPOSE_DELAY_SECONDS)
        if not composition.strip():
            on_result(None, "")
            return
        texts = [composition] + [escape_brackets(against)] * bool(against.strip())
        try:
            on_result(
                await self.context.worker.measure_composition(model or DEFAULT_MODEL, texts, device or "auto", opened),
                "",
            )
        except SoftPromptError as error:
            on_result(None, str(error))

    def list_models(self, on_result: Callable[[list[str]], None]) -> None:
        """List the names of the models that can be trained for, but only if the list is cached."""
        self.context.spawn(partial(self._models, on_result), group="models")

    async def _models(self, on_result: Callable[[list[str]], None]) -> None:
        from softprompt.encoders.catalog import is_cached, list_models

        if is_cached():  # otherwise, reading the list from open_clip would take 5-8 s
            infos = await asyncio.to_thread(list_models)
            on_result([info.name for info in infos if not info.refused])

    def warm(self, device: str) -> None:
        """Let the worker load the built-in model, so that the first training run starts at once.

        Other models are large and are loaded only when they are used.
        """
        self.context.spawn(partial(self._warm, device or "auto"), group="warm")

    async def _warm(self, device: str) -> None:
        with suppress(SoftPromptError):
            await self.context.worker.ask(p.Similarity(DEFAULT_MODEL, ["warm"], device))


def escape_brackets(text: str) -> str:
    """Escape the brackets in a text, so that none of them names a soft prompt."""
    return re.sub(r"[\\\[\]]", r"\\\g<0>", text)
