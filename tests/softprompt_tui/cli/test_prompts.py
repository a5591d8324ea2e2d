"""Image programs' prompt syntax and the model's special tokens, on the command line and in the editor."""

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
COPIED_PROMPT = "(red fox:1.3) in snow <lora:x:1>\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a"
END_TOKEN_PROMPT = "a fox<end_of_text> asleep in the deep snow"


def hard_prompts() -> list[str]:
    return sorted(entry.hard_prompt for entry in Library().list().entries)


@pytest.mark.parametrize(
    ("options", "trained"), [((), "(red fox:1.3) in snow <lora:x:1>"), (("--plain",), "red fox in snow")]
)
def test_a_prompt_copied_from_an_image_program_is_cut_and_noted_once(
    run: Run, options: tuple[str, ...], trained: str
) -> None:
    result = run("train", COPIED_PROMPT, *SHORT, *options, "--json")
    assert result.returncode == 0
    assert json.loads(result.stdout)["hard_prompt"] == trained
    assert result.stderr.count("weights such as (word:1.3)") == 1
    assert "LoRA tags" in result.stderr
    assert "cut before the negative prompt" in result.stderr
    assert ("Use --plain to remove them" in result.stderr) == (not options)


def test_a_batch_notes_image_program_syntax_once_for_all_prompts(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text(f"(red fox:1.3)\n{FOX}\na {{red|blue}} lake\n(boat:1.1) BREAK\n")
    result = run("batch", str(file), *SHORT, "--plain", "--no-contexts")
    assert result.returncode == 0
    assert result.stderr.count("some prompts have") == 1
    assert hard_prompts() == sorted(["red fox", FOX, "a red lake", "boat"])


def test_no_text_may_contain_a_special_token(run: Run, encoder: TextEncoder, tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text(END_TOKEN_PROMPT)
    context = ("--context", "{} <start_of_text> at night")
    for command in (
        ("train", END_TOKEN_PROMPT, *SHORT),
        ("train", "a fox &lt;END_OF_TEXT&gt; asleep", *SHORT),
        ("train", FOX, *SHORT, *context),
        ("train", FOX, *SHORT, "--objective", "contrastive", "--against", END_TOKEN_PROMPT),
        ("train", END_TOKEN_PROMPT, "--background"),
        ("sweep", END_TOKEN_PROMPT, "--tokens", "1-2", "-q"),
        ("compare", END_TOKEN_PROMPT, "a fox"),
        ("compose", END_TOKEN_PROMPT),
    ):
        result = run(*command)
        assert result.returncode == 2, command
        assert "_of_text>, a special token of the model" in result.stderr, command
        assert result.stderr.count("\n") == 1, command
    result = run("batch", str(file), *SHORT)
    assert result.returncode == 1
    assert "special token" in json.loads(result.stdout)["error"]["message"]
    with pytest.raises(PromptError, match="special token"):
        softprompt.train(encoder, END_TOKEN_PROMPT, tokens=1, steps=3)
    assert not Library().list().total


def test_the_count_ends_where_the_model_stops_reading() -> None:
    count = count_tokens(END_TOKEN_PROMPT, "mini")
    assert count is not None
    assert count.cut_at is not None
    assert END_TOKEN_PROMPT[: count.cut_at] + ">" == "a fox<end_of_text>"
    assert count.reserved == "<end_of_text>"


@pytest.mark.usefixtures("runtime")
def test_the_editor_marks_image_program_syntax_and_text_after_an_end_token() -> None:
    def marked_text(d: Session, style: str) -> str:
        editor = d.app.main.prompt_pane.editor
        line = editor.get_line(0)
        return "".join(line.plain[span.start : span.end] for span in line.spans if style in str(span.style))

    async def scene(d: Session) -> None:
        pane = d.app.main.prompt_pane
        pane.set("a (fox:1.2) <lora:x:1> asleep")
        await d.until(lambda: marked_text(d, "underline") == "(:1.2)<lora:x:1>")
        pane.set(END_TOKEN_PROMPT)
        await d.shows("cut off at <end_of_text>")
        assert marked_text(d, "strike").endswith(" asleep in the deep snow")
        pane.set("a (fox:1.2) asleep")
        for notices in (1, 0):  # a prompt gets the notice once
            await d.train()
            assert sum("weights such as" in notice.message for notice in d.app._notifications) == notices
            d.app.action_dismiss_notices()
        d.app.settings.more = {"plain": "yes"}
        run_id = await d.train()
        assert d.worker.runs[run_id].job.prompt == "a fox asleep"

    run_scene(scene)
