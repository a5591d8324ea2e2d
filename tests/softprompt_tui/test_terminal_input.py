"""All terminal input, however split, becomes keys, pastes and mouse events, and never an error."""

from __future__ import annotations

import random

import pytest
from textual.events import Key, MouseEvent, Paste
from textual.message import Message

from softprompt_tui import terminal_input
from softprompt_tui.rendering.sanitize import clean_paste
from softprompt_tui.terminal_input import InputDecoder

# (bytes, the resulting keys and pastes)
INPUTS: list[tuple[bytes, list[str]]] = [
    (b"fox", ["f", "o", "x"]),
    ("雪é".encode(), ["雪", "é"]),
    (b"\xe9 x", ["\ufffd", "space", "x"]),  # from a Latin-1 terminal
    (b"a\xff\xfeb", ["a", "\ufffd", "\ufffd", "b"]),
    (b"\x1b[M \xa0\x30k", ["k"]),  # a legacy mouse report beyond column 95
    (b"\x1b[M \xc3\xa9k", ["k"]),  # a mouse report whose bytes could be a character
    (b"\x1b[A\x1bOP\x1b[15~\x1b[27u", ["up", "f1", "f5", "escape"]),
    (b"\x1b[200~a\r\nb\x1b[201~c", ["paste 'a\\r\\nb'", "c"]),
    (b"\x1b[200~\xba\xec\x1b[201~", ["paste '\ufffd\ufffd'"]),  # GBK
    (
        b"\x1b[200~\x1b[31m red d u \x1b and forty more characters of a log\x1b[201~x",
        ["paste '\\x1b[31m red d u \\x1b and forty more characters of a log'", "x"],
    ),
    (b"\x1b[200~\x1b[200~\x1b[M\x1b[I\x00\x1b[201~", ["paste '\\x1b[200~\\x1b[M\\x1b[I\\x00'"]),
    (b"\x1b\x11", ["escape", "ctrl+q"]),  # two keys that a slow line joined
    (b"\x1b\r\x1b\x1b\x14", ["escape", "enter", "escape", "escape", "ctrl+t"]),
    (b"\x1bd\x1b\x7f\x1b\t", ["alt+d", "ctrl+w", "shift+tab"]),
    (b"\x1b[99999999999uk", ["k"]),  # a key number too large for a character
]  # fmt: skip


def names(messages: list[Message]) -> list[str]:
    out = []
    for message in messages:
        if isinstance(message, Paste):
            out.append(f"paste {message.text!r}")
        elif isinstance(message, Key):
            out.append(message.character if message.character and ord(message.character) > 127 else message.key)
    return out


@pytest.mark.parametrize(("data", "events"), INPUTS)
def test_the_same_bytes_give_the_same_keys_in_every_split(data: bytes, events: list[str]) -> None:
    for size in (len(data), 1, 2, 3, 5):
        decoder, received = InputDecoder(), []
        for at in range(0, len(data), size):
            received += decoder.feed(data[at : at + size])
            received += decoder.tick()
        assert names(received) == events


def test_a_key_survives_a_gap_between_its_bytes_and_the_escape_key_does_not_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = 0.0
    monkeypatch.setattr("textual._parser.get_time", lambda: clock)
    monkeypatch.setattr(terminal_input.time, "monotonic", lambda: clock)
    decoder = InputDecoder()
    for part in (b"\x1b[20", b"0~a pa", b"ste\x1b", b"[201~\x1b[", b"A\xe9"):
        assert names(list(decoder.feed(part))) == ["paste 'a paste'"] * (part == b"[201~\x1b[") + ["up"] * (
            part == b"A\xe9"
        )
        clock += 0.4  # as long as it takes to send a lost packet again
        assert names(list(decoder.tick())) == []
    clock += 1.0
    assert names(list(decoder.tick())) == ["\ufffd"]
    list(decoder.feed(b"\x1b"))
    clock += 0.11
    assert names(list(decoder.tick())) == ["escape"]


def test_no_bytes_stop_the_input() -> None:
    rng = random.Random(0)
    parts = [
        b"\x1b",
        b"\x1b[",
        b"\x1b[M",
        b"\x1b[200~",
        b"\x1b[201~",
        b"\x1b[<0;3;4M",
        b"\x1b[48;0;0;0;0t",
        b";",
        b"999999999",
        b"u",
        b"~",
        b"\xff",
        b"\xe9",
        b"\x00",
        b"a",
    ]
    for _ in range(400):
        decoder = InputDecoder()
        for message in decoder.feed(b"".join(rng.choices(parts, k=30))):
            assert isinstance(message, Message)
        list(decoder.feed(b"\x1b[201~"))
        clicks = list(decoder.feed(b"\x1b[<0;3;4M" * 2 + b"z" * 40))
        assert any(isinstance(message, MouseEvent) for message in clicks)
        assert names(clicks)[-1] == "z"


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n", "\x85", "\u2028", "\u2029", "\v", "\f"])
def test_every_line_ending_in_a_paste_becomes_one_line_break(end: str) -> None:
    assert clean_paste(f"a red fox{end}in deep snow{end}", on_one_line=False) == "a red fox\nin deep snow\n"
    assert clean_paste(f"a red fox{end}{end} in deep snow{end}", on_one_line=True) == "a red fox in deep snow"


def test_a_paste_contains_no_control_characters() -> None:
    assert clean_paste("a\x00b\x1b[2Jc\x9bd\u202ee\ttab", on_one_line=False) == "ab[2Jcde\ttab"
    assert clean_paste(" as it is ", on_one_line=True) == " as it is "
