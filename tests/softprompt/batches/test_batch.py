"""Batches: reading files of prompts, training each prompt once, and the output file."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from softprompt import Library, TrainConfig, iter_batch, train_batch
from softprompt.batches import Batch, BatchProgress, Defaults, Result
from softprompt.batches.row_job import ROW_KEYS, job_digest
from softprompt.batches.rows import MAX_LINE_BYTES, Row, RowKeys, read_rows
from softprompt.errors import ConfigError, FileRefused, ModelUnavailable, RunRefused, UnknownModel
from softprompt.jobs.job import TrainJob
from softprompt.training.errors import TrainingFailed

SHORT = TrainConfig(tokens=2, steps=4, contexts=())
PROMPTS = ["a red fox asleep in deep snow", "a boat on a lake at dawn", "an old lighthouse above a stormy sea"]


def rows(text: str | bytes, name: str = "prompts", **options: Any) -> list[Row]:
    raw = text if isinstance(text, bytes) else text.encode()
    return list(read_rows(io.BytesIO(raw), name, RowKeys(ROW_KEYS, options.pop("column", "prompt")), **options))


def prompts(text: str | bytes, name: str = "prompts", **options: Any) -> list[tuple[int, Any]]:
    parsed = rows(text, name, **options)
    assert not any(row.error for row in parsed), parsed
    return [(row.line, row.values.get("prompt")) for row in parsed]


def batch_files(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "data" / "batches").iterdir())


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# reading files


def test_text_has_one_prompt_per_line_without_blank_lines_and_comments() -> None:
    text = '\ufeff# my prompts\r\n\r\na red fox\r\n  a boat, "blue"  \n\\#1 best cat\n\t\n#end\nlast'
    assert prompts(text) == [(3, "a red fox"), (4, 'a boat, "blue"'), (5, "#1 best cat"), (8, "last")]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_cells_are_settings_of_their_row(delimiter: str) -> None:
    text = 'Name,prompt,tokens,stop-at\nfox,a red fox,3,\n,"a boat\n""Anna"" on, a lake",,0.9\n\n,a cat\n'.replace(
        ",", "\0"
    )
    text = text.replace("on\0", "on,").replace("\0", delimiter)
    assert [(row.line, row.values) for row in rows(text, "x.csv")] == [
        (2, {"name": "fox", "prompt": "a red fox", "tokens": "3"}),
        (3, {"prompt": 'a boat\n"Anna" on, a lake', "stop_at": "0.9"}),
        (6, {"prompt": "a cat"}),
    ]  # fmt: skip


def test_json_lines_are_objects_or_strings() -> None:
    text = '{"prompt": "a red fox", "tokens": 3}\n\n"a boat"\n{"prompt": "\\u00e9", "contexts": []}\n'
    expected = [
        (1, {"prompt": "a red fox", "tokens": 3}),
        (3, {"prompt": "a boat"}),
        (4, {"prompt": "é", "contexts": []}),
    ]
    assert [(row.line, row.values) for row in rows(text)] == expected


@pytest.mark.parametrize(
    ("name", "text", "first"),
    [
        ("-", "a red fox\n", (1, "a red fox")),
        ("-", '{"prompt": "a"}\n', (1, "a")),
        ("-", "\n\nprompt\na\n", (4, "a")),
        ("-", "tokens,prompt\n3,a\n", (2, "a")),
        ("-", "a cat, prompt, sharp\n", (1, "a cat, prompt, sharp")),  # a header has only known keys
        ("x.txt", "prompt\n", (1, "prompt")),
        ("x.CSV", "prompt,url\na,b\n", (2, "a")),
        ("x.jsonl", '"a"', (1, "a")),
    ],
)
def test_format_is_detected_by_name_or_first_line(name: str, text: str, first: tuple[int, str]) -> None:
    assert prompts(text, name)[0] == first


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("x.csv", "sep=;\r\nprompt;name\r\na castle, old;c1\r\n", [(3, "a castle, old")]),
        ("x.csv", '\ufeff"sep=|"\n\nprompt|name\n\na castle|c1\n', [(5, "a castle")]),
        ("-", "SEP=\t\nurl\tprompt\nx\ta castle\n", [(3, "a castle")]),
        ("x.csv", 'prompt\r"a castle"\r', [(2, "a castle")]),
        (
            "x.csv",
            'name;prompt\rc1;"a castle\nby the ""sea"""\rc2;a hut',
            [(2, 'a castle\nby the "sea"'), (4, "a hut")],
        ),
        ("x.txt", "a castle\r\r# no\ra hut\r", [(1, "a castle"), (4, "a hut")]),
        (
            "x.txt",
            "\ufeffa castle\r" + "a hut\r" * 40_000,
            [(1, "a castle"), *((n, "a hut") for n in range(2, 40_002))],
        ),
        ("x.jsonl", '"a castle"\r"a hut"\r', [(1, "a castle"), (2, "a hut")]),
        (
            "x.txt",
            "a castle\rred\na hut\nx\n",
            [(1, "a castle\rred"), (2, "a hut"), (3, "x")],
        ),  # LF ends the lines
    ],
)
def test_files_of_excel_and_old_programs_are_read(name: str, text: str, expected: list[tuple[int, str]]) -> None:
    assert prompts(text, name) == expected


def test_automatic1111_styles_are_named_prompts() -> None:
    text = (
        "\ufeffname,prompt,negative_prompt\r\nNone,,\r\n"
        'Film | 35 mm,"film still of {prompt}, grain,\nsoft light",blurry\r\n'
        'Sea,"{prompt}, at sea",\r\nOnly place,{prompt},\r\n'
        'Bad hands,,"extra fingers"\r\nno more\r\nEnd,"oil painting, {prompt}",x\r\n'
    )
    keys = RowKeys(ROW_KEYS)
    assert [row.values for row in read_rows(io.BytesIO(text.encode()), "styles.csv", keys)] == [
        {"name": "Film-35 mm", "prompt": "film still of grain, soft light"},
        {"name": "Sea", "prompt": "at sea"},
        {"name": "End", "prompt": "oil painting"},
    ]
    assert keys.unused == ["negative_prompt"]
    assert keys.notes == [
        "styles without a prompt of their own were skipped",
        "{prompt} in a style is a placeholder for another prompt and was removed",
    ]


def test_line_of_options_gives_only_its_prompt() -> None:
    text = (
        '--prompt "a fox, red" --seed 3 --steps 20 --negative_prompt "blurry --steps 5"\n'
        "--steps=20 --prompt a  fox in snow --width 512\n"
        "--prompt='it''s --steps' --tiling\n--prompt --ar 16:9\n-- a prompt\n--prompted a cat\na --prompt\n--prompt\n"
        '--prompt "no end\n--prompt "' + "a" * (1 << 18) + '"\n'
    )
    keys = RowKeys(ROW_KEYS)
    parsed = list(read_rows(io.BytesIO(text.encode()), "-", keys))
    assert [row.values for row in parsed[:8]] == [
        {"prompt": text}
        for text in (
            "a fox, red", "a fox in snow", "its --steps", "--ar 16:9", "-- a prompt", "--prompted a cat", "a --prompt",
            "",
        )
    ]  # fmt: skip
    assert [row.error[:30] for row in parsed[8:]] == [
        "its options cannot be parsed: ",
        "the line has more than 262,144",
    ]
    assert keys.unused == ["--seed", "--steps", "--negative_prompt", "--width", "--tiling"]


@pytest.mark.parametrize(
    ("rows_after", "message"),
    [
        (
            "a fox number {};5\n",
            "a quotation mark opened on line 4 is not closed (the row that starts on line 4 has more than 131,072",
        ),
        ('";"\n', "the row that starts on line 4 has more than 131,072 characters). Close it, and write"),
    ],
)
def test_unclosed_quotation_mark_is_reported_with_its_line(rows_after: str, message: str) -> None:
    bytes_read = 0

    class Lines(io.BytesIO):
        def readline(self, size: int | None = -1) -> bytes:
            nonlocal bytes_read
            line = super().readline(size)
            bytes_read += len(line)
            return line

    raw = ('prompt;seed\na;1\nb;2\n"no end;3\n' + rows_after * 300_000).encode()
    with pytest.raises(FileRefused, match=r"x\.csv: .*" + re.escape(message)):
        list(read_rows(Lines(raw), "x.csv", RowKeys(ROW_KEYS)))
    assert bytes_read < 400_000  # not to the end of the file
    (row,) = rows('prompt\n"a\nb\n', "x.csv")
    assert "Is a quotation mark missing" in row.error
    assert "The quotation mark on line 2 is not closed" in row.error


def test_settings_of_single_rows_take_no_memory() -> None:
    config = TrainConfig(contexts=())
    few, many = (
        Batch(
            [
                {"prompt": "a fox", "seed": n, "steps": 1 + n, "rate": 1 + n / 99, "patience": 1 + n}
                for n in range(count)
            ],
            Defaults(config),
        )
        for count in (1, 40)
    )
    with closing(few), closing(many):
        assert len(few.spool.groups) == len(many.spool.groups) == 1


def test_unknown_columns_are_ignored_and_the_prompt_column_can_be_chosen() -> None:
    keys = RowKeys(ROW_KEYS, "caption")
    parsed = list(read_rows(io.BytesIO(b"url,caption,prompt\nx,a red fox,y\n"), "x.csv", keys))
    assert [row.values for row in parsed] == [{"prompt": "a red fox"}]
    assert keys.unused == ["url", "prompt"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.jsonl", '{"prompt": "a"', "it is not valid JSON"),
        ("x.jsonl", "[" * 100_000, "it is not valid JSON"),
        ("x.jsonl", '{"prompt": "a", "rate": NaN}', "NaN is not a JSON number"),
        ("x.jsonl", '{"prompt": "a", "steps": ' + "9" * 5000 + "}", "it is not valid JSON"),
        ("x.jsonl", '["a", "b"]', "Put each item on its own line"),
        ("x.jsonl", "3", "it must be an object or a string, but is 3"),
        ("x.jsonl", '{"prompt": "a", "tokenz": 3}', "did you mean 'tokens'?"),
        ("x.csv", "prompt\na,b", "it has 2 cells, but the header has 1"),
        ("x.csv", 'prompt\n"a', "Is a quotation mark missing"),
        ("x.csv", 'prompt\n"' + "a " * 100_000 + '"', "it is not valid CSV"),
        ("x.csv", "prompt\n" + "a" * (MAX_LINE_BYTES + 5), "the line has more than"),
        ("x.txt", "a" * (MAX_LINE_BYTES + 5), "the line has more than"),
        ("x.txt", "é" * MAX_LINE_BYTES, "the line has more than"),
        ("x.jsonl", "a" * (2 * MAX_LINE_BYTES + 5), "the line has more than"),
    ],
)
def test_malformed_row_is_an_error_of_that_row_only(name: str, text: str, message: str) -> None:
    good = '\n"a boat"\n'
    parsed = rows(text + good, name)
    assert message in parsed[0].error
    if "missing" not in message:  # an open quotation mark includes the next lines
        assert (parsed[-1].error, parsed[-1].values["prompt"].strip('"')) == ("", "a boat")


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        ("x.txt", b"", "x.txt is empty"),
        ("x.txt", b"\n  \n\n", "x.txt is empty"),
        ("x.txt", "a fox".encode("utf-16"), "Save it as UTF-8"),
        ("x.txt", bytes(1000), "x.txt is not text: byte 1 is a NUL. Use a text file, CSV or JSON Lines"),
        ("x.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0", "x.png is not text: byte 9 is a NUL"),
        ("x.jsonl", b'\x18\0\0\0{"vectors":1}' + b"\n\n" * 9 + b'"a"\n' * 9, "x.jsonl is not text: byte 2 is a NUL"),
        (
            "x.csv",
            "prompt\nein Fuchs im Schnée\nüber Nacht\n".encode("latin-1"),
            "byte 25 is not UTF-8.*save the file as UTF-8",
        ),
        ("-", "a fox\n".encode("utf-16-le") * 9, "byte 2 is a NUL"),
        ("x.csv", b"text,url\na,b\n", "has no column named 'prompt'. Its columns are text, url"),
        ("x.csv", b"prompt,token\na,b\n", "did you mean 'tokens'?"),
        ("x.csv", b"prompt,steps,Steps\na,1,2\n", "two columns named 'steps'"),
    ],
)
def test_unreadable_file_is_rejected(name: str, raw: bytes, message: str) -> None:
    with pytest.raises(FileRefused, match=message.replace("?", r"\?")):
        rows(raw, name)


def test_endless_input_is_rejected(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    from softprompt.batches import rows as rows_module
    from softprompt.batches import spool

    class Endless(io.RawIOBase):
        def readline(self, size: int | None = -1) -> bytes:
            return self.line[:size]

    monkeypatch.setattr(rows_module, "MAX_FILE_BYTES", 1 << 24)
    monkeypatch.setattr(spool, "MAX_ROWS", 1000)
    for line, message in ((b"a" * (MAX_LINE_BYTES + 1), "more than 16 MiB"), (b"a fox\n", "more than 1,000 prompts")):
        endless = Endless()
        endless.line = line  # type: ignore[attr-defined]
        with pytest.raises(FileRefused, match=message):
            Batch(endless)  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["nothing.txt", ".", "a\0b"])
def test_missing_file_is_rejected(path: str) -> None:
    with pytest.raises(FileRefused, match="cannot read"):
        Batch(path)


# training


def test_every_prompt_is_trained_and_saved_with_its_own_settings(home: Path) -> None:
    source = [
        PROMPTS[0],
        {"prompt": PROMPTS[1], "tokens": 1, "name": "boat", "contexts": "no"},
        {"prompt": PROMPTS[2], "seed": "5"},
    ]
    reports: list[BatchProgress] = []
    results = {result.line: result for result in train_batch(source, SHORT, tags=("lot",), on_progress=reports.append)}
    assert sorted(results) == [1, 2, 3]
    assert all(result.state == "trained" and result.error is None for result in results.values())
    assert (results[2].name, results[2].tokens, results[1].tokens) == ("boat", 1, 2)
    for result in results.values():
        entry = Library().open(result.id)
        assert (entry.prompt.hard_prompt, entry.prompt.name, entry.prompt.steps) == (result.prompt, result.name, 4)
        assert (entry.prompt.similarity, entry.tags) == (result.similarity, ("lot",))
    assert Library().open("boat").prompt.config["contexts"] == []
    assert (reports[-1].total, reports[-1].done, reports[-1].trained, reports[-1].failed) == (3, 3, 3, 0)
    assert batch_files(home) == []


def test_columns_that_are_not_used_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "captions.csv"
    file.write_text(f"prompt,tags,url\n{PROMPTS[0]},1girl solo,x\n", encoding="utf-8")
    (result,) = train_batch(file, SHORT, tags="lot")
    assert "not used: tags, url" in caplog.messages
    assert Library().open(result.id).tags == ("lot",)


def test_failed_prompt_gives_a_result_and_other_prompts_are_trained() -> None:
    bad = [
        "",
        "   ",
        {"tokens": 3},
        {"prompt": 5},
        "a\0b",
        "\udcff",
        {"prompt": "x", "tokens": 0},
        {"prompt": "x", "name": "../x"},
    ]
    bad += [
        {"prompt": "x", "init": "soft"},
        {"prompt": "x", "steps": "many"},
        {"prompt": "x", "contexts": ["no slot"]},
        7,
    ]  # type: ignore[list-item]
    bad += ["fox " * 300, "fox " * 100_000, {"prompt": "x", "tokens": 76}, {"prompt": "x", "model": "minni"}]
    results = {result.line: result for result in train_batch([*bad, PROMPTS[0]], SHORT)}  # type: ignore[list-item]
    assert sorted(results) == list(range(1, len(bad) + 2))
    assert [line for line, result in results.items() if result.error is None] == [len(bad) + 1]
    errors = [result.error for _, result in sorted(results.items()) if result.error]
    kinds = ["PromptError"] * 6 + ["ConfigError", "BadName", "ConfigError", "ConfigError", "ConfigError", "PromptError"]
    assert [kind for kind, _ in errors] == [*kinds, "PromptTooLong", "PromptError", "ConfigError", "UnknownModel"]
    for result in results.values():
        json.loads(result.as_line().decode("ascii"))
    assert len(Library().list().entries) == 1


def test_unavailable_default_model_ends_the_batch() -> None:
    with pytest.raises(UnknownModel, match="Close: mini"):
        list(train_batch(PROMPTS, SHORT, model="minni"))
    with pytest.raises(ConfigError, match="which a batch cannot use"):
        Defaults(TrainConfig(init="soft"))


def test_tokens_auto_trains_the_fewest_tokens() -> None:
    (result,) = train_batch([{"prompt": "a red fox", "tokens": "auto", "stop_at": 0.8}], TrainConfig(steps=30))
    assert result.tokens == 1
    assert result.similarity is not None
    assert result.similarity > 0.8


# each prompt once


def test_repeated_batch_trains_nothing_and_returns_the_saved_results() -> None:
    first = {result.line: result for result in train_batch(PROMPTS, SHORT)}
    again = list(train_batch(PROMPTS, SHORT))
    assert [result.line for result in again] == [1, 2, 3]
    assert {result.state for result in again} == {"before"}
    assert [(result.id, result.name, result.similarity, result.readout_text) for result in again] == [
        (first[i].id, first[i].name, first[i].similarity, first[i].readout_text) for i in (1, 2, 3)
    ]
    assert len(Library().list().entries) == 3


def test_edited_file_trains_only_new_rows(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("\n".join(PROMPTS[:2]))
    list(train_batch(file, SHORT))
    file.write_text("\n".join([PROMPTS[2], PROMPTS[1], PROMPTS[0]]))
    assert [(result.line, result.state) for result in iter_batch(file, SHORT)] == [
        (2, "before"),
        (3, "before"),
        (1, "trained"),
    ]
    assert {result.state for result in train_batch(file, TrainConfig(tokens=1, steps=4, contexts=()))} == {"trained"}


def test_equal_prompts_get_separate_entries() -> None:
    results = list(train_batch([PROMPTS[0]] * 3, SHORT))
    assert len({result.id for result in results}) == 3
    assert sorted(result.name for result in results) == ["red-fox-asleep", "red-fox-asleep-2", "red-fox-asleep-3"]
    assert {result.state for result in train_batch([PROMPTS[0]] * 3, SHORT)} == {"before"}
    assert [result.state for result in train_batch([PROMPTS[0]] * 4, SHORT)] == ["before"] * 3 + ["trained"]


def test_trashed_entry_counts_as_done_and_purged_entry_does_not() -> None:
    (trained,) = train_batch(PROMPTS[:1], SHORT)
    library = Library()
    library.delete(trained.id)
    (again,) = train_batch(PROMPTS[:1], SHORT)
    assert (again.state, again.id, again.similarity) == ("trashed", trained.id, trained.similarity)
    library.purge(trained.id)
    (retrained,) = train_batch(PROMPTS[:1], SHORT)
    assert (retrained.state, retrained.id) == ("trained", trained.id)
    assert library.open(trained.id).prompt.similarity == trained.similarity


def checkpoint_steps(home: Path) -> dict[str, int]:
    """Return the step of each training run in the checkpoint."""
    from softprompt.batches.checkpoints import BatchCheckpoint
    from softprompt.jobs.checkpoint import from_bytes

    (state,) = (home / "data" / "batches").glob("*.state")
    return {key: from_bytes(raw, key).step for key, raw in BatchCheckpoint(state.parent, state.stem).read().items()}


def test_interrupted_trainings_resume(home: Path) -> None:
    config = TrainConfig(tokens=2, steps=2000, contexts=())
    with closing(Batch(PROMPTS, Defaults(config))) as batch:
        assert list(batch.train(on_progress=lambda progress: progress.in_progress > 0.05)) == []
    assert batch_files(home) == [f"{batch.id}.state"]
    before = checkpoint_steps(home)
    assert min(before.values()) > 0

    def stop_after_progress(progress: BatchProgress) -> bool:
        return progress.in_progress > 0

    with closing(Batch(PROMPTS, Defaults(config))) as batch:
        assert list(batch.train(on_progress=stop_after_progress)) == []
    after = checkpoint_steps(home)
    assert all(before[key] < after[key] < before[key] + 200 for key in before)
    # a damaged checkpoint costs only the steps
    (state,) = (home / "data" / "batches").glob("*.state")
    raw = state.read_bytes()
    state.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    with closing(Batch(PROMPTS, Defaults(config))) as batch:
        assert list(batch.train(on_progress=stop_after_progress)) == []
    assert any(step < before[key] for key, step in checkpoint_steps(home).items())


def test_no_prompt_is_lost_if_the_device_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from softprompt.objectives import pooled

    original, calls = pooled.row_losses, []

    def fail_later(*args: Any) -> Any:
        calls.append(1)
        if len(calls) > 6:
            raise RuntimeError("CUDA error: gone")
        return original(*args)

    out = tmp_path / "out.jsonl"
    with monkeypatch.context() as patch:
        patch.setattr(pooled, "row_losses", fail_later)
        with pytest.raises(TrainingFailed, match="gone"):
            list(train_batch(PROMPTS, SHORT, out=out, row_limit=1))
    assert [(line["line"], line["state"]) for line in read_lines(out)] == [(1, "trained"), (2, "failed")]
    assert sorted(result.line for result in train_batch(PROMPTS, SHORT, out=out)) == [2, 3]
    assert [(line["line"], line["error"]) for line in read_lines(out)] == [(1, None), (2, None), (3, None)]


def test_only_one_process_can_train_a_batch(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with closing(Batch(PROMPTS, Defaults(SHORT))) as batch, closing(Batch(PROMPTS, Defaults(SHORT))) as same_batch:
        results = batch.train(out=out)
        next(results)
        with pytest.raises(RunRefused, match="another process is training this batch"):
            next(same_batch.train())
        with pytest.raises(RunRefused, match="another process is writing to"):
            next(train_batch(PROMPTS[:1], SHORT, out=out))
        list(results)
    assert [result.state for result in train_batch(PROMPTS, SHORT)] == ["before"] * 3


def test_prompt_saved_by_another_process_is_not_a_failure(tmp_path: Path) -> None:
    def save_first(_progress: BatchProgress) -> None:
        if not Library().list().entries:
            list(train_batch(PROMPTS[:1], SHORT, device="cpu"))  # another source: not the same batch

    file = tmp_path / "prompts.txt"
    file.write_text(PROMPTS[0])
    with closing(Batch(file, Defaults(SHORT))) as batch:
        (result,) = batch.train(on_progress=save_first)
    assert (result.state, result.error) == ("before", None)
    assert len(Library().list().entries) == 1


# the output file


def test_output_file_has_one_line_per_prompt(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    results = list(iter_batch([*PROMPTS, ""], SHORT, out=out))
    lines = read_lines(out)
    assert lines == [result.as_dict() for result in results]
    assert [line["error"]["kind"] for line in lines if line["error"]] == ["PromptError"]
    # in the next run, the error line is replaced and nothing else is yielded
    again = list(train_batch([*PROMPTS, ""], SHORT, out=out))
    assert [result.line for result in again] == [4]
    assert sorted(line["line"] for line in read_lines(out)) == [1, 2, 3, 4]


@pytest.mark.parametrize("torn", [b'{"line": 3, "state": "tra', b"{", b'{"line": 3', bytes(500)])
def test_torn_last_line_is_cut_and_written_again(tmp_path: Path, torn: bytes) -> None:
    out = tmp_path / "out.jsonl"
    list(train_batch(PROMPTS, SHORT, out=out))
    complete_lines = out.read_bytes().splitlines(keepends=True)
    out.write_bytes(b"".join(complete_lines[:2]) + torn)
    (again,) = train_batch(PROMPTS, SHORT, out=out)
    assert again.state == "before"
    assert out.read_bytes().splitlines(keepends=True)[:2] == complete_lines[:2]
    assert sorted(line["line"] for line in read_lines(out)) == [1, 2, 3]
    # duplicate lines are removed
    out.write_bytes(b"".join(complete_lines + complete_lines))
    assert list(train_batch(PROMPTS, SHORT, out=out)) == []
    assert out.read_bytes() == b"".join(complete_lines)


@pytest.mark.parametrize(
    "raw", [b"my notes\n", b"my notes", b'{"prompt": "a"}\n', b"[" * 100_000 + b"\n", b'{"line": 1}\n']
)
def test_unrelated_file_is_rejected_and_unchanged(tmp_path: Path, raw: bytes) -> None:
    out = tmp_path / "notes"
    out.write_bytes(raw)
    with pytest.raises(FileRefused, match="is not a batch output file"):
        list(train_batch(PROMPTS, SHORT, out=out))
    assert out.read_bytes() == raw


def test_invalid_output_path_is_rejected(tmp_path: Path) -> None:
    file = tmp_path / "x.txt"
    file.write_text("a fox")
    with pytest.raises(FileRefused, match="the file with the prompts"):
        list(train_batch(file, SHORT, out=file))
    for path in (tmp_path, tmp_path / "none" / "out", Path("/dev/null")):
        with pytest.raises(FileRefused):
            list(train_batch(PROMPTS, SHORT, out=path))


def test_source_is_read_once_and_before_training() -> None:
    def iter_prompts() -> Iterator[str]:
        yield from PROMPTS
        assert not Library().list().entries

    assert len(list(train_batch(iter_prompts(), SHORT))) == 3


def test_result_is_plain_json() -> None:
    assert (
        json.loads(Result(1, "failed", "\x1b", similarity=float("nan"), error=("A", "b")).as_line())
        == Result(1, "failed", "\x1b", error=("A", "b")).as_dict()
    )


def test_unavailable_model_of_a_row_is_an_error_of_that_row(monkeypatch: pytest.MonkeyPatch) -> None:
    from softprompt import load_encoder

    def load(model: str, device: str, precision: str) -> Any:
        if model != "mini":
            raise ModelUnavailable("no network")
        return load_encoder(model, device, precision)

    with closing(Batch([{"prompt": "a", "model": "ViT-B-32/openai"}, *PROMPTS], Defaults(SHORT))) as batch:
        results = list(batch.train(load=load))
    assert [(result.line, result.error) for result in results if result.error] == [
        (1, ("ModelUnavailable", "no network"))
    ]
    assert len(results) == 4


@pytest.mark.parametrize(("tokens", "digest"), [(10, "49f2af96182c0095"), (3, "7526a41d7e5f780a")])
def test_a_job_keeps_its_digest_when_a_default_changes(tokens: int, digest: str) -> None:
    """The digests of the first version, in which 10 tokens were the default. A batch finds its prompts by them."""
    assert job_digest(TrainJob("a red fox in the snow", TrainConfig(tokens=tokens))).hex() == digest
