"""What is asked while one types: how many tokens the prompt takes, what the composition means, which models there are."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from softprompt.encoders.catalog import MINI
from softprompt.errors import SoftPromptError
from softprompt.prompts.syntax import find_syntax
from softprompt.worker import protocol as p
from softprompt_tui.controllers.detail import literal

if TYPE_CHECKING:
    from softprompt_tui.app import SoftPromptApp

COUNT_AFTER, COMPOSE_AFTER = 0.05, 0.15  # seconds: keys that follow each other are asked about once


class Questions:
    """Each is asked anew when what it is about changes; the answer to an older one is not waited for."""

    def __init__(self, app: SoftPromptApp) -> None:
        self.app = app
        self._composed_on = ("", "")

    def count(self) -> None:
        self.app.begin(self._count, group="count", exclusive=True)

    def compose(self) -> None:
        self.app.begin(self._compose, group="similarity", exclusive=True)

    def models(self) -> None:
        self.app.begin(self._models, group="models")

    def warm(self) -> None:
        self.app.begin(self._warm, group="warm")

    async def _warm(self) -> None:
        """Lets the worker load the built-in model, so that the first training begins at once. Others are large: they wait until they are meant."""
        with suppress(SoftPromptError):
            await self.app.line.ask(p.Similarity(MINI, ["warm"], self.app.prompt_pane.fields["device"] or "auto"))

    async def _count(self) -> None:
        from softprompt_tui.services.token_count import count

        await asyncio.sleep(COUNT_AFTER)
        pane = self.app.prompt_pane
        text, model = pane.editor.text, pane.fields["model"] or "mini"
        found, syntax = await asyncio.to_thread(lambda: (count(text, model), find_syntax(text)))
        pane.show_count(found, len(self.app.settings.more), syntax)
        chosen = (pane.fields["model"], pane.fields["device"])
        if chosen != self._composed_on:  # the composition is of the chosen model too
            self._composed_on = chosen
            self.compose()

    async def _compose(self) -> None:
        await asyncio.sleep(COMPOSE_AFTER)
        pane, fields = self.app.compose_pane, self.app.prompt_pane.fields
        if not pane.composition.strip():
            pane.show(None)
            return
        texts = [pane.composition] + [literal(pane.against)] * bool(pane.against.strip())
        request = p.Similarity(fields["model"] or "mini", texts, fields["device"] or "auto", self.app.entries.opened)
        try:
            pane.show(await self.app.line.ask(request))
        except SoftPromptError as error:
            pane.show(None, str(error))

    async def _models(self) -> None:
        from softprompt.encoders.catalog import is_kept, list_models

        if is_kept():  # else the list would have to be read from open_clip, which takes 5-8 s
            infos = await asyncio.to_thread(list_models)
            self.app.prompt_pane.offer_models([info.name for info in infos if not info.refused])
