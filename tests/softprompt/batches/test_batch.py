"""Many prompts from a file: what is read, what is trained, and that each is there once whatever happens."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from softprompt import Library, TrainConfig, train_batch
from softprompt.batches import Batch, BatchProgress, Defaults, Result
from softprompt.batches.row_job import OF_A_ROW
from softprompt.batches.rows import MAX_LINE_BYTES, Keys, Row, read_rows
from softprompt.errors import ConfigError, FileRefused, ModelUnavailable, RunRefused, UnknownModel
from softprompt.training.errors import TrainingFailed

SHORT = TrainConfig(tokens=2, steps=4, contexts=())
PROMPTS = ["a red fox asleep in deep snow", "a boat on a lake at dawn", "an old lighthouse above a stormy sea"]


def rows(text: str | bytes, name: str = "prompts", **options: Any) -> list[Row]:
    raw = text if isinstance(text, bytes) else text.encode()
    return list(read_rows(io.BytesIO(raw), name, Keys(OF_A_ROW, options.pop("column", "prompt")), **options))


def prompts(text: str | bytes, name: str = "prompts", **options: Any) -> list[tuple[int, Any]]:
    found = rows(text, name, **options)
    assert not any(row.error for row in found), found
    return [(row.line, row.values.get("prompt")) for row in found]


def files_of(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "data" / "batches").iterdir())


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# what is read


def test_text_is_a_prompt_a_line_without_blank_lines_and_comments() -> None:
    text = '\ufeff# my prompts\r\n\r\na red fox\r\n  a boat, "blue"  \n\\#1 best cat\n\t\n#end\nlast'
    assert prompts(text) == [(3, "a red fox"), (4, 'a boat, "blue"'), (5, "#1 best cat"), (8, "last")]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_has_a_header_and_settings_for_its_row(delimiter: str) -> None:
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
    found = [(1, {"prompt": "a red fox", "tokens": 3}), (3, {"prompt": "a boat"}), (4, {"prompt": "é", "contexts": []})]
    assert [(row.line, row.values) for row in rows(text)] == found


@pytest.mark.parametrize(
    ("name", "text", "first"),
    [
        ("-", "a red fox\n", (1, "a red fox")),
        ("-", '{"prompt": "a"}\n', (1, "a")),
        ("-", "\n\nprompt\na\n", (4, "a")),
        ("-", "tokens,prompt\n3,a\n", (2, "a")),
        ("-", "a cat, prompt, sharp\n", (1, "a cat, prompt, sharp")),  # a header is made of known words alone
        ("x.txt", "prompt\n", (1, "prompt")),
        ("x.CSV", "prompt,url\na,b\n", (2, "a")),
        ("x.jsonl", '"a"', (1, "a")),
    ],
)
def test_the_format_is_known_by_the_name_or_the_first_line(name: str, text: str, first: tuple[int, str]) -> None:
    assert prompts(text, name)[0] == first


@pytest.mark.parametrize(
    ("name", "text", "found"),
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
        ),  # here LF ends the lines
    ],
)
def test_what_excel_and_old_programs_write_is_read(name: str, text: str, found: list[tuple[int, str]]) -> None:
    assert prompts(text, name) == found


def test_styles_of_automatic1111_are_prompts_with_names() -> None:
    text = (
        '\ufeffname,prompt,negative_prompt\r\nNone,,\r\nFilm | 35 mm,"film still of {prompt}, grain,\nsoft light",blurry\r\n'
        'Sea,"{prompt}, at sea",\r\nOnly place,{prompt},\r\nBad hands,,"extra fingers"\r\nno more\r\nEnd,"oil painting, {prompt}",x\r\n'
    )
    keys = Keys(OF_A_ROW)
    assert [row.values for row in read_rows(io.BytesIO(text.encode()), "styles.csv", keys)] == [
        {"name": "Film-35 mm", "prompt": "film still of grain, soft light"},
        {"name": "Sea", "prompt": "at sea"},
        {"name": "End", "prompt": "oil painting"},
    ]
    assert keys.unused == ["negative_prompt"]
    assert keys.notes == [
        "styles without a prompt of their own are passed over",
        "{prompt} in a style stands for another prompt and is left out",
    ]


def test_of_lines_of_options_only_the_prompt_counts() -> None:
    text = (
        '--prompt "a fox, red" --seed 3 --steps 20 --negative_prompt "blurry --steps 5"\n--steps=20 --prompt a  fox in snow --width 512\n'
        "--prompt='it''s --steps' --tiling\n--prompt --ar 16:9\n-- a prompt\n--prompted a cat\na --prompt\n--prompt\n"
        '--prompt "no end\n--prompt "' + "a" * (1 << 18) + '"\n'
    )
    keys = Keys(OF_A_ROW)
    found = list(read_rows(io.BytesIO(text.encode()), "-", keys))
    assert [row.values for row in found[:8]] == [
        {"prompt": text}
        for text in (
            "a fox, red", "a fox in snow", "its --steps", "--ar 16:9", "-- a prompt", "--prompted a cat", "a --prompt", "",
        )
    ]  # fmt: skip
    assert [row.error[:30] for row in found[8:]] == ["its options cannot be parted (", "the line has more than 262,144"]
    assert keys.unused == ["--seed", "--steps", "--negative_prompt", "--width", "--tiling"]


@pytest.mark.parametrize(
    ("rows_after", "said"),
    [
        (
            "a fox number {};5\n",
            "a quotation mark opens in line 4 and is not closed: the row from line 4 on has more than 131,072",
        ),
        ('";"\n', "the row from line 4 on has more than 131,072 characters. Close it, or double"),
    ],
)
def test_a_quotation_mark_that_is_never_closed_is_refused_where_it_opened(rows_after: str, said: str) -> None:
    read = 0

    class Lines(io.BytesIO):
        def readline(self, size: int | None = -1) -> bytes:
            nonlocal read
            line = super().readline(size)
            read += len(line)
            return line

    raw = ('prompt;seed\na;1\nb;2\n"no end;3\n' + rows_after * 300_000).encode()
    with pytest.raises(FileRefused, match=r"x\.csv: .*" + re.escape(said)):
        list(read_rows(Lines(raw), "x.csv", Keys(OF_A_ROW)))
    assert read < 400_000  # bytes: it is not read to its end
    (row,) = rows('prompt\n"a\nb\n', "x.csv")
    assert "is a quotation mark missing" in row.error
    assert "The one in line 2 is not closed" in row.error


def test_a_row_with_settings_of_its_own_costs_no_memory_for_them() -> None:
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
        assert len(few.spool.hows) == len(many.spool.hows) == 1


def test_columns_of_another_meaning_are_not_used_and_another_can_hold_the_prompts() -> None:
    keys = Keys(OF_A_ROW, "caption")
    found = list(read_rows(io.BytesIO(b"url,caption,prompt\nx,a red fox,y\n"), "x.csv", keys))
    assert [row.values for row in found] == [{"prompt": "a red fox"}]
    assert keys.unused == ["url", "prompt"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("x.jsonl", '{"prompt": "a"', "it is no JSON"),
        ("x.jsonl", "[" * 100_000, "it is no JSON"),
        ("x.jsonl", '{"prompt": "a", "rate": NaN}', "NaN is no number"),
        ("x.jsonl", '{"prompt": "a", "steps": ' + "9" * 5000 + "}", "it is no JSON"),
        ("x.jsonl", '["a", "b"]', "write each of its items in a line of its own"),
        ("x.jsonl", "3", "an object or a string is expected"),
        ("x.jsonl", '{"prompt": "a", "tokenz": 3}', "is 'tokens' meant?"),
        ("x.csv", "prompt\na,b", "it has 2 cells, the header 1"),
        ("x.csv", 'prompt\n"a', "is a quotation mark missing"),
        ("x.csv", 'prompt\n"' + "a " * 100_000 + '"', "it is no CSV"),
        ("x.csv", "prompt\n" + "a" * (MAX_LINE_BYTES + 5), "the line has more than"),
        ("x.txt", "a" * (MAX_LINE_BYTES + 5), "the line has more than"),
        ("x.txt", "é" * MAX_LINE_BYTES, "the line has more than"),
        ("x.jsonl", "a" * (2 * MAX_LINE_BYTES + 5), "the line has more than"),
    ],
)
def test_what_is_wrong_with_a_row_is_its_own_error(name: str, text: str, said: str) -> None:
    good = '\n"a boat"\n'
    found = rows(text + good, name)
    assert said in found[0].error
    if "missing" not in said:  # an open quotation mark takes what follows with it
        assert (found[-1].error, found[-1].values["prompt"].strip('"')) == ("", "a boat")


@pytest.mark.parametrize(
    ("name", "raw", "said"),
    [
        ("x.txt", b"", "x.txt is empty"),
        ("x.txt", b"\n  \n\n", "x.txt is empty"),
        ("x.txt", "a fox".encode("utf-16"), "save it as UTF-8"),
        ("x.txt", bytes(1000), "x.txt is no text: byte 1 is a NUL. A text file, CSV or JSON Lines is expected"),
        ("x.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0", "x.png is no text: byte 9 is a NUL"),
        ("x.jsonl", b'\x18\0\0\0{"vectors":1}' + b"\n\n" * 9 + b'"a"\n' * 9, "x.jsonl is no text: byte 2 is a NUL"),
        (
            "x.csv",
            "prompt\nein Fuchs im Schnée\nüber Nacht\n".encode("latin-1"),
            "byte 25 is no UTF-8.*must be saved as UTF-8",
        ),
        ("-", "a fox\n".encode("utf-16-le") * 9, "byte 2 is a NUL"),
        ("x.csv", b"text,url\na,b\n", "no column 'prompt' in its first line, but text, url"),
        ("x.csv", b"prompt,token\na,b\n", "is 'tokens' meant?"),
        ("x.csv", b"prompt,steps,Steps\na,1,2\n", "two columns 'steps'"),
    ],
)
def test_a_file_that_cannot_be_read_at_all_is_refused(name: str, raw: bytes, said: str) -> None:
    with pytest.raises(FileRefused, match=said.replace("?", r"\?")):
        rows(raw, name)


def test_input_that_never_ends_is_refused(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    from softprompt.batches import rows as reading
    from softprompt.batches import spool

    class Endless(io.RawIOBase):
        def readline(self, size: int | None = -1) -> bytes:
            return self.line[:size]

    monkeypatch.setattr(reading, "MAX_FILE_BYTES", 1 << 24)
    monkeypatch.setattr(spool, "MAX_ROWS", 1000)
    for line, said in ((b"a" * (MAX_LINE_BYTES + 1), "more than 16 MiB"), (b"a fox\n", "more than 1,000 prompts")):
        endless = Endless()
        endless.line = line  # type: ignore[attr-defined]
        with pytest.raises(FileRefused, match=said):
            Batch(endless)  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["nothing.txt", ".", "a\0b"])
def test_a_file_that_is_not_there_is_refused(path: str) -> None:
    with pytest.raises(FileRefused, match="cannot be read"):
        Batch(path)


# what is trained


def test_every_prompt_is_trained_and_saved_with_its_own_settings(home: Path) -> None:
    mixed = [
        PROMPTS[0],
        {"prompt": PROMPTS[1], "tokens": 1, "name": "boat", "contexts": "no"},
        {"prompt": PROMPTS[2], "seed": "5"},
    ]
    told: list[BatchProgress] = []
    results = {result.line: result for result in train_batch(mixed, SHORT, tags=("lot",), on_progress=told.append)}
    assert sorted(results) == [1, 2, 3]
    assert all(result.state == "trained" and result.error is None for result in results.values())
    assert (results[2].name, results[2].tokens, results[1].tokens) == ("boat", 1, 2)
    for result in results.values():
        entry = Library().open(result.id)
        assert (entry.prompt.hard_prompt, entry.prompt.name, entry.prompt.steps) == (result.prompt, result.name, 4)
        assert (entry.prompt.similarity, entry.tags) == (result.similarity, ("lot",))
    assert Library().open("boat").prompt.config["contexts"] == []
    assert (told[-1].total, told[-1].done, told[-1].trained, told[-1].failed) == (3, 3, 3, 0)
    assert files_of(home) == []


def test_a_prompt_that_fails_is_one_result_and_the_others_go_on() -> None:
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


def test_the_usual_model_that_cannot_be_had_ends_the_batch() -> None:
    with pytest.raises(UnknownModel, match="Close: mini"):
        list(train_batch(PROMPTS, SHORT, model="minni"))
    with pytest.raises(ConfigError, match="a batch begins from"):
        Defaults(TrainConfig(init="soft"))


def test_the_fewest_tokens_can_be_asked_for() -> None:
    (result,) = train_batch([{"prompt": "a red fox", "tokens": "auto", "stop_at": 0.8}], TrainConfig(steps=30))
    assert result.tokens == 1
    assert result.similarity is not None
    assert result.similarity > 0.8


# each once


def test_the_same_again_trains_nothing_and_tells_what_is_there() -> None:
    first = {result.line: result for result in train_batch(PROMPTS, SHORT)}
    again = list(train_batch(PROMPTS, SHORT))
    assert [result.line for result in again] == [1, 2, 3]
    assert {result.state for result in again} == {"before"}
    assert [(one.id, one.name, one.similarity, one.readout_text) for one in again] == [
        (first[i].id, first[i].name, first[i].similarity, first[i].readout_text) for i in (1, 2, 3)
    ]
    assert len(Library().list().entries) == 3


def test_of_an_edited_file_what_is_new_is_trained(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("\n".join(PROMPTS[:2]))
    list(train_batch(file, SHORT))
    file.write_text("\n".join([PROMPTS[2], PROMPTS[1], PROMPTS[0]]))
    assert [(result.line, result.state) for result in train_batch(file, SHORT)] == [
        (2, "before"),
        (3, "before"),
        (1, "trained"),
    ]
    assert {result.state for result in train_batch(file, TrainConfig(tokens=1, steps=4, contexts=()))} == {"trained"}


def test_equal_prompts_are_entries_of_their_own() -> None:
    results = list(train_batch([PROMPTS[0]] * 3, SHORT))
    assert len({result.id for result in results}) == 3
    assert sorted(result.name for result in results) == ["red-fox-asleep", "red-fox-asleep-2", "red-fox-asleep-3"]
    assert {result.state for result in train_batch([PROMPTS[0]] * 3, SHORT)} == {"before"}
    assert [result.state for result in train_batch([PROMPTS[0]] * 4, SHORT)] == ["before"] * 3 + ["trained"]


def test_what_is_in_the_trash_is_done_and_what_is_purged_is_not() -> None:
    (made,) = train_batch(PROMPTS[:1], SHORT)
    library = Library()
    library.delete(made.id)
    (again,) = train_batch(PROMPTS[:1], SHORT)
    assert (again.state, again.id, again.similarity) == ("trashed", made.id, made.similarity)
    library.purge(made.id)
    (anew,) = train_batch(PROMPTS[:1], SHORT)
    assert (anew.state, anew.id) == ("trained", made.id)
    assert library.open(made.id).prompt.similarity == made.similarity


def steps_in(home: Path) -> dict[str, int]:
    """How far each training is that the batch has written down."""
    from softprompt.batches.checkpoints import BatchCheckpoint
    from softprompt.jobs.checkpoint import from_bytes

    (state,) = (home / "data" / "batches").glob("*.state")
    return {key: from_bytes(raw, key).step for key, raw in BatchCheckpoint(state.parent, state.stem).read().items()}


def test_what_was_under_way_goes_on_where_it_was(home: Path) -> None:
    long = TrainConfig(tokens=2, steps=2000, contexts=())
    with closing(Batch(PROMPTS, Defaults(long))) as batch:
        assert list(batch.train(on_progress=lambda progress: progress.under_way > 0.05)) == []
    assert files_of(home) == [f"{batch.id}.state"]
    before = steps_in(home)
    assert min(before.values()) > 0

    def further(progress: BatchProgress) -> bool:
        return progress.under_way > 0

    with closing(Batch(PROMPTS, Defaults(long))) as batch:
        assert list(batch.train(on_progress=further)) == []
    after = steps_in(home)
    assert all(before[key] < after[key] < before[key] + 200 for key in before)
    # a state that is damaged costs only the steps
    (state,) = (home / "data" / "batches").glob("*.state")
    raw = state.read_bytes()
    state.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    with closing(Batch(PROMPTS, Defaults(long))) as batch:
        assert list(batch.train(on_progress=further)) == []
    assert any(step < before[key] for key, step in steps_in(home).items())


def test_a_device_that_is_lost_costs_no_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from softprompt.objectives import pooled

    real, calls = pooled.row_losses, []

    def failing(*args: Any) -> Any:
        calls.append(1)
        if len(calls) > 6:
            raise RuntimeError("CUDA error: gone")
        return real(*args)

    out = tmp_path / "out.jsonl"
    with monkeypatch.context() as patch:
        patch.setattr(pooled, "row_losses", failing)
        with pytest.raises(TrainingFailed, match="gone"):
            list(train_batch(PROMPTS, SHORT, out=out, places=1))
    assert [(line["line"], line["state"]) for line in lines_of(out)] == [(1, "trained"), (2, "failed")]
    assert sorted(result.line for result in train_batch(PROMPTS, SHORT, out=out)) == [2, 3]
    assert [(line["line"], line["error"]) for line in lines_of(out)] == [(1, None), (2, None), (3, None)]


def test_a_batch_is_one_process_s_at_a_time(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with closing(Batch(PROMPTS, Defaults(SHORT))) as one, closing(Batch(PROMPTS, Defaults(SHORT))) as other:
        first = one.train(out=out)
        next(first)
        with pytest.raises(RunRefused, match="is being trained by another process"):
            next(other.train())
        with pytest.raises(RunRefused, match="another process writes to"):
            next(train_batch(PROMPTS[:1], SHORT, out=out))
        list(first)
    assert [result.state for result in train_batch(PROMPTS, SHORT)] == ["before"] * 3


def test_another_that_saves_the_same_meanwhile_is_no_failure(tmp_path: Path) -> None:
    def quicker(_progress: BatchProgress) -> None:
        if not Library().list().entries:
            list(train_batch(PROMPTS[:1], SHORT, device="cpu"))  # by another name: not the same batch

    file = tmp_path / "prompts.txt"
    file.write_text(PROMPTS[0])
    with closing(Batch(file, Defaults(SHORT))) as batch:
        (result,) = batch.train(on_progress=quicker)
    assert (result.state, result.error) == ("before", None)
    assert len(Library().list().entries) == 1


# the file of results


def test_the_file_has_one_line_for_each_prompt(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    told = list(train_batch([*PROMPTS, ""], SHORT, out=out))
    lines = lines_of(out)
    assert lines == [result.as_dict() for result in told]
    assert [line["error"]["kind"] for line in lines if line["error"]] == ["PromptError"]
    # again, the error's line is replaced and nothing else is told
    again = list(train_batch([*PROMPTS, ""], SHORT, out=out))
    assert [result.line for result in again] == [4]
    assert sorted(line["line"] for line in lines_of(out)) == [1, 2, 3, 4]


@pytest.mark.parametrize("torn", [b'{"line": 3, "state": "tra', b"{", b'{"line": 3', bytes(500)])
def test_a_torn_last_line_is_cut_and_told_again(tmp_path: Path, torn: bytes) -> None:
    out = tmp_path / "out.jsonl"
    list(train_batch(PROMPTS, SHORT, out=out))
    whole = out.read_bytes().splitlines(keepends=True)
    out.write_bytes(b"".join(whole[:2]) + torn)
    (again,) = train_batch(PROMPTS, SHORT, out=out)
    assert again.state == "before"
    assert out.read_bytes().splitlines(keepends=True)[:2] == whole[:2]
    assert sorted(line["line"] for line in lines_of(out)) == [1, 2, 3]
    # one that stands there twice is there once
    out.write_bytes(b"".join(whole + whole))
    assert list(train_batch(PROMPTS, SHORT, out=out)) == []
    assert out.read_bytes() == b"".join(whole)


@pytest.mark.parametrize(
    "raw", [b"my notes\n", b"my notes", b'{"prompt": "a"}\n', b"[" * 100_000 + b"\n", b'{"line": 1}\n']
)
def test_a_file_that_is_not_of_results_stays_as_it_is(tmp_path: Path, raw: bytes) -> None:
    out = tmp_path / "notes"
    out.write_bytes(raw)
    with pytest.raises(FileRefused, match="is no file of a batch's results"):
        list(train_batch(PROMPTS, SHORT, out=out))
    assert out.read_bytes() == raw


def test_results_do_not_go_where_they_cannot(tmp_path: Path) -> None:
    file = tmp_path / "x.txt"
    file.write_text("a fox")
    with pytest.raises(FileRefused, match="is the file of the prompts"):
        list(train_batch(file, SHORT, out=file))
    for path in (tmp_path, tmp_path / "none" / "out", Path("/dev/null")):
        with pytest.raises(FileRefused):
            list(train_batch(PROMPTS, SHORT, out=path))


def test_a_source_is_read_before_anything_is_trained_and_only_once() -> None:
    def drawn() -> Iterator[str]:
        yield from PROMPTS
        assert not Library().list().entries

    assert len(list(train_batch(drawn(), SHORT))) == 3


def test_a_result_is_plain_json() -> None:
    assert (
        json.loads(Result(1, "failed", "\x1b", similarity=float("nan"), error=("A", "b")).as_line())
        == Result(1, "failed", "\x1b", error=("A", "b")).as_dict()
    )


def test_a_model_of_a_row_that_cannot_be_had_is_that_rows_error(monkeypatch: pytest.MonkeyPatch) -> None:
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
