"""A slow line gets fewer live frames."""

from __future__ import annotations

import pytest

from softprompt_tui.services import line_speed
from softprompt_tui.services.line_speed import LOST_SECONDS, MAX_PAUSE_SECONDS, QUERY, LineSpeed
from softprompt_tui.terminal_input import InputDecoder


class Line:
    """A line whose clock the test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.sent = 100.0, []  # type: tuple[float, list[str]]
        monkeypatch.setattr(line_speed.time, "monotonic", lambda: self.now)
        self.speed = LineSpeed(self.sent.append)


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Line:
    return Line(monkeypatch)


def test_a_terminal_that_never_answers_gets_every_frame(line: Line) -> None:
    line.speed.ask()
    line.now += 1
    assert (line.sent, line.speed.delay()) == ([], 0.0)


@pytest.mark.parametrize("seconds", [0.3, 2.0, 9.0])
def test_a_slow_line_rests_as_long_as_a_frame_took(line: Line, seconds: float) -> None:
    line.speed.answered()  # the answer to Textual's question at the start
    line.speed.ask()
    line.speed.ask()
    assert line.sent == [QUERY]  # one question at a time
    line.now += seconds
    assert line.speed.delay() > 0
    line.speed.answered()
    assert line.speed.delay() == pytest.approx(min(seconds, MAX_PAUSE_SECONDS))
    line.now += seconds
    assert line.speed.delay() == 0


def test_a_fast_line_never_waits(line: Line) -> None:
    line.speed.answered()
    for _ in range(10):
        line.speed.ask()
        line.now += 0.01
        assert line.speed.delay() == 0
        line.speed.answered()
        assert line.speed.delay() == 0


def test_a_lost_answer_is_not_waited_for(line: Line) -> None:
    line.speed.answered()
    line.speed.ask()
    line.now += LOST_SECONDS + 1
    assert line.speed.delay() == 0


@pytest.mark.parametrize("cut", range(1, 11))
def test_an_answer_is_recognised_however_it_is_split_and_types_nothing(cut: int) -> None:
    answers: list[None] = []
    decoder = InputDecoder(lambda: answers.append(None))
    data = b"\x1b[?2026;2$y"
    messages = [*decoder.feed(data[:cut]), *decoder.feed(data[cut:])]
    assert len(answers) == 1
    assert not [message for message in messages if type(message).__name__ == "Key"]
