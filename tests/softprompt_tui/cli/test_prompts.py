"""Prompts as people have them, on the command line and in the editor: image programs' syntax, and the model's special tokens."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import softprompt
from softprompt import Library
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.errors import PromptError
from softprompt_tui.services.token_count import count_tokens
from tests.app_harness import Session, run_scene, runtime  # noqa: F401  # runtime is a fixture
from tests.conftest import FOX

Run = Callable[..., subprocess.CompletedProcess[str]]
SHORT = ("-k", "1", "--steps", "3", "-q")
COPIED = "(red fox:1.3) in snow <lora:x:1>\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a"
ENDED = "a fox<end_of_text> asleep in the deep snow"


def hard_prompts() -> list[str]:
    return sorted(entry.hard_prompt for entry in Library().list().entries)


@pytest.mark.parametrize(
    ("options", "trained"), [((), "(red fox:1.3) in snow <lora:x:1>"), (("--plain",), "red fox in snow")]
)
def test_what_is_copied_from_an_image_program_is_cut_and_said_once(
    run: Run, options: tuple[str, ...], trained: str
) -> None:
    done = run("train", COPIED, *SHORT, *options, "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["hard_prompt"] == trained
    assert done.stderr.count("weights such as (word:1.3)") == 1
    assert "LoRA tags" in done.stderr
    assert "cut before the negative prompt" in done.stderr
    assert ("--plain removes them" in done.stderr) == (not options)


def test_a_batch_says_it_once_for_all_prompts(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text(f"(red fox:1.3)\n{FOX}\na {{red|blue}} lake\n(boat:1.1) BREAK\n")
    done = run("batch", str(file), *SHORT, "--plain", "--no-contexts")
    assert done.returncode == 0
    assert done.stderr.count("some prompts have") == 1
    assert hard_prompts() == sorted(["red fox", FOX, "a red lake", "boat"])


def test_no_text_may_spell_a_special_token(run: Run, encoder: TextEncoder, tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text(ENDED)
    context = ("--context", "{} <start_of_text> at night")
    for command in (
        ("train", ENDED, *SHORT),
        ("train", "a fox &lt;END_OF_TEXT&gt; asleep", *SHORT),
        ("train", FOX, *SHORT, *context),
        ("train", FOX, *SHORT, "--objective", "contrastive", "--against", ENDED),
        ("train", ENDED, "--background"),
        ("sweep", ENDED, "--tokens", "1-2", "-q"),
        ("compare", ENDED, "a fox"),
        ("compose", ENDED),
    ):
        done = run(*command)
        assert done.returncode == 2, command
        assert "_of_text>, a special token of the model" in done.stderr, command
        assert done.stderr.count("\n") == 1, command
    done = run("batch", str(file), *SHORT)
    assert done.returncode == 1
    assert "special token" in json.loads(done.stdout)["error"]["message"]
    with pytest.raises(PromptError, match="special token"):
        softprompt.train(encoder, ENDED, tokens=1, steps=3)
    assert not Library().list().total


def test_the_count_ends_where_the_model_stops_reading() -> None:
    counted = count_tokens(ENDED, "mini")
    assert counted is not None
    assert counted.cut_at is not None
    assert ENDED[: counted.cut_at] + ">" == "a fox<end_of_text>"
    assert counted.reserved == "<end_of_text>"


@pytest.mark.usefixtures("runtime")
def test_the_editor_marks_both() -> None:
    def marked(d: Session, style: str) -> str:
        editor = d.app.main.prompt_pane.editor
        line = editor.get_line(0)
        return "".join(line.plain[span.start : span.end] for span in line.spans if style in str(span.style))

    async def scene(d: Session) -> None:
        pane = d.app.main.prompt_pane
        pane.set("a (fox:1.2) <lora:x:1> asleep")
        await d.until(lambda: marked(d, "underline") == "(:1.2)<lora:x:1>")
        pane.set(ENDED)
        await d.shows("reading ends at <end_of_text>")
        assert marked(d, "strike").endswith(" asleep in the deep snow")
        pane.set("a (fox:1.2) asleep")
        for said in (1, 0):  # once for a prompt
            await d.train()
            assert sum("weights such as" in notice.message for notice in d.app._notifications) == said
            d.app.action_quiet()
        d.app.settings.more = {"plain": "yes"}
        run = await d.train()
        assert d.worker.runs[run].job.prompt == "a fox asleep"

    run_scene(scene)
