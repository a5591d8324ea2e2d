"""A failed run says why and what to do; one key stops the run in view; repeated and long work is asked about."""

from __future__ import annotations

import pytest
from textual.widgets import Input

from softprompt import Library
from softprompt.config import TrainConfig
from softprompt.jobs.job import TrainJob
from softprompt.worker import protocol as p
from softprompt.worker.log import log_path
from softprompt.worker.summary import RunSummary
from softprompt_tui.rendering.failure import brief_reason, describe_failure
from softprompt_tui.screens.dialogs import AskKey, AskText
from softprompt_tui.screens.loss_plot import PlotScreen
from softprompt_tui.screens.text_viewer import TextScreen
from softprompt_tui.state.sweep_estimate import estimate_sweep
from softprompt_tui.widgets.curve import LossCurve
from softprompt_tui.widgets.loss import FAILURE_ACTIONS
from softprompt_tui.widgets.prompt import ROWS
from tests.app_harness import Session, run_scene, runtime  # noqa: F401  # runtime is a fixture
from tests.library_model import a_prompt

pytestmark = pytest.mark.usefixtures("runtime")
NOT_FOUND = "ViT-L-14/openai is not on disk and cannot be downloaded: no answer from the hub. Set HF_ENDPOINT."


async def fail(d: Session, error: str = NOT_FOUND, error_kind: str = "ModelUnavailable", step: int = 0) -> str:
    """Train the prompt and let the run fail. Return its id."""
    run = await d.train()
    d.worker.begin(run)
    if step:
        d.worker.report(run, step // 2, loss=0.9)
        d.worker.report(run, step)
        await d.shows(f"{step}/300")
    d.worker.end(run, error=error, error_kind=error_kind)
    await d.until(lambda: d.app.runs.by_id[run].state == "failed")
    return run


def title(d: Session) -> str:
    return d.text().splitlines()[0]


# a failed run


def test_a_failed_run_says_why_and_stays_readable_until_another_one_starts() -> None:
    async def scene(d: Session) -> None:
        run = await fail(d, step=120)
        await d.shows(f"✗ failed {run[:6]} · image of serene", "The run failed after 120 of 300", "What you can do")
        await d.shows("failed: model", "available. F3 shows what to do")
        await d.pilot.resize_terminal(82, 25)
        assert not d.app.main.loss.query_one(LossCurve).display  # the words need the room
        await d.pilot.press("f2", *"more")
        assert "failed" in title(d)
        await d.pilot.press("ctrl+t")
        await d.until(lambda: len(d.worker.runs) == 2)
        await d.until(lambda: "✗" not in d.text() and "What you can do" not in d.text())

    run_scene(scene)


def test_a_failure_is_told_at_length_once_and_briefly_elsewhere() -> None:
    async def scene(d: Session) -> None:
        await fail(d)
        await d.shows("no answer", "What you can do")
        await d.pilot.press("f6", "g")
        await d.shows("model not available; F3 says more")  # below the rows
        assert d.text().count("no answer") == 1
        assert title(d).rstrip().endswith("model not available")
        assert "Set HF_ENDPOINT" not in title(d)

    run_scene(scene, 120, 40)


def test_an_unknown_kind_of_failure_is_named_by_its_first_words() -> None:
    for error, brief in (
        ("cpu is out of memory: fewer restarts need less", "cpu is out of memory"),
        ("the disk is full. Free some space.", "the disk is full"),
        ("cuda:0 failed", "cuda:0 failed"),
        ("", ""),
    ):
        assert brief_reason(RunSummary("1", "failed", error=error, error_kind="Odd")) == brief


def test_the_keys_of_the_advice_work_in_the_pane() -> None:
    async def scene(d: Session) -> None:
        run = await fail(d)
        assert d.app.focused is d.app.main.prompt_pane.editor  # a failure takes the focus from nobody
        await d.pilot.press("f3")
        await d.shows("r Try again", "m Model", "l Log")
        log_path().parent.mkdir(parents=True, exist_ok=True)
        log_path().write_text("an \x1b[31mold line\nConnectError: refused\n")
        await d.pilot.press("l")
        await d.until(lambda: isinstance(d.app.screen, TextScreen))
        await d.shows("ConnectError: refused", "an ␛[31mold line")
        await d.pilot.press("escape", "m")
        await d.until(lambda: getattr(d.app.focused, "id", "") == "field-model")
        await d.pilot.press("f3", "r")
        await d.until(lambda: d.worker.runs[run].state == "queued")
        await d.until(lambda: "✗" not in title(d))
        assert p.Resume(run) in d.worker.requests

    run_scene(scene, 120, 40)


def test_f3_goes_to_the_failure_first_and_then_opens_the_curve() -> None:
    async def scene(d: Session) -> None:
        await fail(d, step=40)
        await d.pilot.press("f3")
        assert d.app.focused is d.app.main.loss
        await d.pilot.press("f3")
        await d.until(lambda: isinstance(d.app.screen, PlotScreen))

    run_scene(scene)


def test_a_variable_set_too_late_for_the_worker_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(d: Session) -> None:
        d.app.main.prompt_pane.set_field("model", "ViT-L-14/openai")
        run = await fail(d)
        await d.shows("What you can do")
        assert "HF_ variables" not in d.text()
        monkeypatch.setenv("HF_TOKEN", "hf_secret")  # as in a terminal opened after the worker was started
        d.app.main.detail.run_changed(d.app.runs.by_id[run])
        await d.shows(
            "The worker was started with other HF_ variables: `softprompt-tui", "worker stop`, then try again."
        )

    run_scene(scene, 120, 40)


def test_a_run_that_fails_out_of_view_leaves_the_pane_alone_and_is_named_in_the_title() -> None:
    async def scene(d: Session) -> None:
        d.app.main.prompt_pane.set("a red fox")
        first = await d.train()
        d.worker.begin(first)
        d.worker.report(first, 40)
        await d.shows("step 40 of 300")
        other = (await d.app.worker.submit(TrainJob("a blue boat"))).id
        d.worker.begin(other)
        d.worker.end(other, error="the disk is full. Free some space.", error_kind="HomeError")
        await d.shows(f"✗ {other[:6]} failed: F6 shows why", "a blue boat failed: the disk is full. enter in runs")
        await d.shows("step 40 of 300")
        assert "What you can do" not in d.text()
        d.app.clear_notifications()
        await d.pilot.press("f6", "G", "enter")
        await d.shows("What you can do", "try again, once the disk", "✗ failed")

    run_scene(scene, 120, 40)


def test_the_best_of_a_failed_training_does_not_hide_why_it_failed() -> None:
    saved = Library().save(a_prompt(name="fox")).id

    async def scene(d: Session) -> None:
        run = await d.train()
        d.worker.begin(run)
        d.worker.report(run, 40)
        failed = {"event": "failed", "error": "cuda:0 failed", "error_kind": "TrainingFailed", "entry": saved}
        d.worker._apply_event(d.worker.runs[run], failed | {"latest": dict(d.worker.runs[run].latest)})
        await d.until(lambda: d.app.main.detail.shown_entry)
        d.app.clear_notifications()
        await d.shows("The best so far is in the", "cuda:0 failed", "What you can do", "F9 Readout")

    run_scene(scene)


@pytest.mark.parametrize(
    "kind",
    ["ModelUnavailable", "ModelRefused", "DeviceError", "TrainingFailed", "PromptTooLong", "HomeError", "", "Odd"],
)
def test_every_kind_of_error_has_advice_whose_keys_exist(kind: str) -> None:
    failure = describe_failure(RunSummary("1" * 16, "failed", "a fox", "ViT-L-14/openai", error="", error_kind=kind))
    assert failure.reason == "No reason was given."
    assert failure.ended == ""
    known = {*FAILURE_ACTIONS, "F8", "ctrl+o"}
    assert failure.advice
    assert {key for key, _ in failure.advice} <= known
    assert ("l", "show the worker's log") in failure.advice


def test_only_errors_of_loading_blame_the_model() -> None:
    def headline(**values: object) -> str:
        return describe_failure(RunSummary("1", "failed", "a fox", steps=300, **values)).headline  # type: ignore[arg-type]

    assert headline(error_kind="DeviceError") == "The run failed after 0 of 300 steps, while loading its model."
    assert headline(error_kind="PromptError") == "The run failed after 0 of 300 steps, before its first step."
    assert headline(kind="hard", step=7) == "The search for a hard readout failed after 7 of 300 rounds."
    assert headline(step=300, hard=True, entry="2").startswith("The run failed after all 300 steps, in the search")


# stopping


@pytest.mark.parametrize("place", ["editor", "field", "library"])
def test_one_key_stops_the_run_in_view_from_anywhere(place: str) -> None:
    async def scene(d: Session) -> None:
        assert "^x" not in d.text()
        run = await d.train()
        d.worker.begin(run)
        d.worker.report(run, 40)
        await d.until(lambda: d.app.runs.by_id[run].step == 40)
        await d.shows("^t Train  ^x Stop this")
        await d.pilot.press(*{"editor": ("f2",), "field": ("f2", "tab"), "library": ("f4",)}[place])
        await d.pilot.press("ctrl+x")
        await d.shows("stopping; the best so far is kept")
        assert d.worker.runs[run].state == "stopped"
        await d.until(lambda: "^x" not in d.text())
        assert d.app.main.prompt_pane.prompt.startswith("image of serene")
        assert d.app.main.prompt_pane.fields["tokens"] == "3"

    run_scene(scene)


def test_a_queued_run_is_stopped_without_a_question() -> None:
    async def scene(d: Session) -> None:
        run = await d.train()
        await d.pilot.press("ctrl+x")
        await d.shows("stopped; there was nothing to keep yet")
        assert d.worker.runs[run].state == "stopped"

    run_scene(scene)


def test_a_run_that_is_stopped_while_it_loads_promises_nothing() -> None:
    async def scene(d: Session) -> None:
        run = await d.train()
        d.worker.begin(run)
        d.worker.load(run, "reading the weights")
        await d.shows("reading the weights")
        await d.pilot.press("ctrl+x")
        await d.shows("stopping; there is nothing to keep yet", "stopped; nothing to keep yet")
        assert "the best" not in d.text()

    run_scene(scene, 120, 40)


def test_selected_text_is_cut_and_the_run_goes_on() -> None:
    async def scene(d: Session) -> None:
        pane = d.app.main.prompt_pane
        pane.set("a red fox")
        run = await d.train()
        d.worker.begin(run)
        await d.pilot.press("f2", "shift+left", "shift+left", "shift+left", "ctrl+x")
        await d.until(lambda: pane.prompt == "a red")
        assert d.app.clipboard == "fox"
        await d.pilot.press("tab", "tab", "end", "shift+left", "ctrl+x")
        await d.until(lambda: pane.fields["steps"] == "30")
        assert d.worker.runs[run].state == "running"
        await d.pilot.press("ctrl+x")
        await d.until(lambda: d.worker.runs[run].state == "stopped")

    run_scene(scene)


def test_without_a_run_ctrl_x_cuts_as_in_every_editor() -> None:
    async def scene(d: Session) -> None:
        pane = d.app.main.prompt_pane
        pane.set("a red fox")
        await d.pilot.press("f2", "shift+home", "ctrl+x")
        await d.until(lambda: pane.prompt == "")

    run_scene(scene)


# the same training again


@pytest.mark.parametrize(("answer", "count"), [("t", 2), ("o", 1), ("escape", 1)])
def test_a_training_that_waits_or_runs_is_not_trained_again_silently(answer: str, count: int) -> None:
    async def scene(d: Session) -> None:
        d.press_at_once("ctrl+t", "ctrl+t", "ctrl+t")  # the dialog ignores the third
        await d.shows("The same training is waiting in the", "Train it again anyway")
        (run,) = d.worker.runs
        await d.pilot.press(answer)
        await d.until(lambda: not isinstance(d.app.screen, AskKey) and len(d.worker.runs) == count)
        assert d.app.main.detail.run in d.worker.runs
        d.worker.begin(run)
        d.worker.report(run, 40)
        await d.until(lambda: d.app.runs.by_id[run].step == 40)
        await d.pilot.press("ctrl+t")
        await d.shows("The same training is running at step 40")

    run_scene(scene)


def test_the_same_training_in_the_library_can_be_opened() -> None:
    text = "image of serene landscape at sunrise with trees mountains and lake"
    config = TrainConfig(tokens=3)
    saved = Library().save(a_prompt(name="dawn", hard_prompt=text, config=config.as_dict(), device="cpu, float32")).id
    Library().save(a_prompt(name="other seed", hard_prompt=text, config=config.as_dict() | {"seed": 1}))

    async def scene(d: Session) -> None:
        await d.pilot.press("ctrl+t")
        await d.shows("The same training is in the library: dawn, similarity 0.9971")
        await d.pilot.press("o")
        await d.until(lambda: d.app.main.detail.entry == saved)
        assert not d.worker.runs
        Library().delete("dawn")  # whoever deletes it wants another one
        await d.pilot.press("ctrl+t")
        await d.until(lambda: d.worker.runs)

    run_scene(scene, 120, 40)


def test_another_device_or_name_is_the_same_training_but_another_seed_is_not() -> None:
    async def scene(d: Session) -> None:
        first = await d.train()
        d.app.settings.more = {"seed": "7"}
        await d.pilot.press("ctrl+t")
        await d.until(lambda: len(d.worker.runs) == 2)
        d.app.settings.more = {"name": "dawn"}
        d.app.main.prompt_pane.query_one("#field-device", Input).value = "cpu"
        await d.pilot.press("ctrl+t")
        await d.shows("The same training")
        await d.pilot.press("o")
        await d.until(lambda: d.app.main.detail.run == first)
        assert d.app.settings.more == {"name": "dawn"}  # nothing typed is lost

    run_scene(scene)


def test_a_failed_or_stopped_training_is_trained_again_without_a_question() -> None:
    async def scene(d: Session) -> None:
        await fail(d)
        d.app.clear_notifications()
        await d.pilot.press("ctrl+t")
        await d.until(lambda: len(d.worker.runs) == 2)
        await d.pilot.press("ctrl+x")
        await d.until(lambda: list(d.worker.runs.values())[-1].state == "stopped")
        await d.pilot.press("ctrl+t")
        await d.until(lambda: len(d.worker.runs) == 3)

    run_scene(scene)


# enter, F7


def test_enter_goes_through_the_fields_and_back_to_the_editor() -> None:
    async def scene(d: Session) -> None:
        await d.pilot.press("f2", "tab")
        for name in [name for row in ROWS for name in row]:
            assert getattr(d.app.focused, "id", "") == f"field-{name}"
            await d.pilot.press("enter")
        assert d.app.focused is d.app.main.prompt_pane.editor
        assert not [request for request in d.worker.requests if isinstance(request, p.Submit)]

    run_scene(scene)


def test_a_sweep_says_what_it_will_do_and_asks_if_that_takes_long() -> None:
    async def scene(d: Session) -> None:
        await d.pilot.press("f7")
        await d.shows("trains 16 soft prompts at once, of 1 to 16 tokens, in 300", "unknown: no run has")
        await d.pilot.press("escape")
        run = await d.train()
        d.worker.begin(run)
        d.worker.report(run, 100)  # 100 steps in a second
        await d.until(lambda: d.app.runs.by_id[run].step)
        await d.pilot.press("f7")
        await d.shows("up to 1 min, estimated from an")
        await d.pilot.press("escape")
        d.app.settings.more = {"sweep": "1,2"}
        sweep = await d.sweep()
        await d.shows("2 soft prompts at once, of 1, 2 tokens", "up to 10 s")  # short, so it starts at once
        assert d.worker.runs[sweep].job.kind == "sweep"

    run_scene(scene, 120, 40)


def test_an_estimate_needs_a_run_of_the_same_model_and_device() -> None:
    training = RunSummary("1", "done", model="mini", device="cpu", step=100, seconds=10.0)
    sweep = RunSummary("2", "done", model="mini", device="cpu", step=100, seconds=50.0, kind="sweep", sweep=(1, 2))
    assert estimate_sweep([training], "mini", "cuda", 16, 300) is None
    assert estimate_sweep([RunSummary("3", "queued", model="mini", device="cpu")], "mini", "cpu", 16, 300) is None
    from_training = estimate_sweep([training], "MINI", "cpu", 10, 300)
    assert from_training is not None
    assert from_training.is_upper_bound
    assert from_training.seconds == pytest.approx(480)
    from_sweep = estimate_sweep([training, sweep], "mini", "cpu", 4, 300)
    assert from_sweep == (300.0, False)


# dropped runs


def test_a_dropped_run_comes_back_with_its_progress() -> None:
    async def scene(d: Session) -> None:
        run = await d.train()
        d.worker.begin(run)
        d.worker.report(run, 40)
        await d.shows("step 40")
        await d.pilot.press("f6", "p")
        await d.until(lambda: d.app.runs.by_id[run].state == "paused")
        await d.pilot.press("d")
        await d.shows("dropped; u brings it back: image", "No runs.")
        assert not d.worker.runs
        await d.pilot.press("u")
        await d.shows("back in the list: image", "paused")
        assert d.worker.runs[run].latest["step"] == 40
        await d.pilot.press("u")
        await d.shows("nothing to undo")

    run_scene(scene)


def test_the_last_dropped_run_comes_back_first_unless_another_terminal_was_faster() -> None:
    async def scene(d: Session) -> None:
        first, second = [(await d.app.worker.submit(TrainJob(f"fox {i}"))).id for i in range(2)]
        await d.until(lambda: len(d.app.runs.by_id) == 2)
        await d.pilot.press("f6", "d")
        await d.until(lambda: first not in d.worker.runs)
        await d.pilot.press("d")
        await d.until(lambda: not d.worker.runs)
        del d.worker.dropped[second]
        await d.pilot.press("u")
        await d.shows("no dropped run")
        await d.pilot.press("u")
        await d.until(lambda: set(d.worker.runs) == {first})

    run_scene(scene)


# refused answers


def test_a_refused_name_keeps_the_dialog_with_what_was_typed() -> None:
    Library().save(a_prompt(name="fox"))

    async def scene(d: Session) -> None:
        await d.pilot.press("f4")
        await d.until(lambda: d.app.main.library_pane.table.current)
        await d.pilot.press("r")
        await d.until(lambda: isinstance(d.app.screen, AskText))
        await d.pilot.press(*"v1", "enter")
        await d.shows("reserved")
        assert isinstance(d.app.screen, AskText)
        assert d.app.screen.query_one(Input).value == "v1"
        await d.pilot.press("end", *"x", "enter")
        await d.until(lambda: Library().list().entries[0].name == "v1x")

    run_scene(scene)
