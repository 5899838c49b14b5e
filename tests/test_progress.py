"""What a search shows while it goes on, on a terminal and in a log."""

import io
import re
from pathlib import Path

import pytest

from pipeline import progress
from pipeline.progress import ProgressLine
from pipeline.values import Objective, Progress

ACCURACY = Objective("val_accuracy", "maximize")
LOG_LOSS = Objective("val_log_loss", "minimize")


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True

    def screen(self) -> list[str]:
        """The lines that a terminal of endless width would show."""
        lines = [""]
        for part in re.split(r"([\r\n])", self.getvalue()):
            if part == "\n":
                lines.append("")
                column = 0
            elif part == "\r":
                column = 0
            else:
                column = 0 if not lines[-1] else column
                lines[-1] = lines[-1][:column] + part + lines[-1][column + len(part) :]
                column += len(part)
        return [line.rstrip() for line in lines]

    def redraws(self) -> list[str]:
        """What was written between two returns to the first column."""
        return re.split(r"[\r\n]", self.getvalue())


class Clock:
    """Seconds as the test sets them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture(params=[40, 80, 200])
def width(request, monkeypatch) -> int:
    monkeypatch.setenv("COLUMNS", str(request.param))
    return request.param


def epoch(number: int, place: int) -> Progress:
    return Progress(number, 0, place, {}, 0.5)


class TestLog:
    def test_each_trial_is_one_plain_line(self, clock):
        log = io.StringIO()
        line = ProgressLine(ACCURACY, 3, 0, None, log)
        for number, value in enumerate((0.5, None, 0.75)):
            clock.now += 2
            line.trial(number, f"ended {number}", value)
        line.close()
        assert "\r" not in log.getvalue()
        assert log.getvalue().endswith("\n")
        lines = log.getvalue().splitlines()
        assert [text.split(" | ")[0] for text in lines] == [
            "trial 0 ended 0",
            "trial 1 ended 1",
            "trial 2 ended 2",
        ]

    def test_a_line_tells_count_best_value_rate_and_time_left(self, clock):
        log = io.StringIO()
        line = ProgressLine(ACCURACY, 10, 0, None, log)
        clock.now += 36
        line.trial(0, "completed", 0.5)
        clock.now += 36
        line.trial(1, "completed", 0.25)
        # Two trials in 72 s are 100 an hour, and eight more take 288 s.
        assert log.getvalue().splitlines()[1] == (
            "trial 1 completed | 2/10 trials | best val_accuracy 0.5000 (trial 0) | 100 trials/h | 5 min left"
        )

    def test_a_resumed_study_counts_all_trials_and_times_only_its_own(self, clock):
        log = io.StringIO()
        line = ProgressLine(LOG_LOSS, 8, 4, (0.125, 2), log)
        clock.now += 60
        line.trial(4, "completed", 0.5)
        assert "5/8 trials | best val_log_loss 0.1250 (trial 2) | 60 trials/h | 3 min left" in log.getvalue()

    def test_epochs_are_told_once_a_minute(self, clock):
        log = io.StringIO()
        line = ProgressLine(ACCURACY, 3, 0, None, log)
        for place in range(200):
            clock.now += 1
            line.epoch(epoch(0, place))
        lines = log.getvalue().splitlines()
        assert [text.split(":")[0] for text in lines] == [
            "trial 0, epoch 60",
            "trial 0, epoch 120",
            "trial 0, epoch 180",
        ]

    def test_what_is_said_is_a_line_and_closing_adds_none(self):
        log = io.StringIO()
        line = ProgressLine(ACCURACY, 3, 0, None, log)
        line.say("hello")
        line.close()
        assert log.getvalue() == "hello\n"

    @pytest.mark.parametrize(
        ("seconds", "left"), [(5, "45 s left"), (120, "18 min left"), (1800, "4.5 h left")]
    )
    def test_time_left_is_told_in_a_unit_that_reads_well(self, seconds, left, clock):
        log = io.StringIO()
        line = ProgressLine(ACCURACY, 10, 0, None, log)
        clock.now += seconds
        line.trial(0, "completed", 0.5)
        assert log.getvalue().endswith(f"| {left}\n")

    def test_a_trial_of_no_measurable_time_is_told_too(self, clock):
        # Windows's clock moves every 16 ms, and a trial that fails while it is built takes less.
        log = io.StringIO()
        line = ProgressLine(ACCURACY, 10, 0, None, log)
        line.trial(0, "failed: ValueError: no", None)
        assert log.getvalue().startswith("trial 0 failed: ValueError: no | 1/10 trials")

    def test_a_file_is_no_terminal(self, tmp_path: Path):
        with (tmp_path / "log").open("w+") as file:
            ProgressLine(ACCURACY, 1, 0, None, file).trial(0, "completed", 0.5)
            file.seek(0)
            assert "\r" not in file.read()


@pytest.mark.parametrize(
    ("objective", "values", "best"),
    [
        (ACCURACY, (0.5, 0.75, 0.25), "0.7500 (trial 1)"),
        (LOG_LOSS, (0.5, 0.75, 0.25), "0.2500 (trial 2)"),
        (ACCURACY, (0.5, 0.5), "0.5000 (trial 0)"),
        (LOG_LOSS, (0.5, 0.5), "0.5000 (trial 0)"),
        (LOG_LOSS, (None, 0.5, None), "0.5000 (trial 1)"),
        (ACCURACY, (0.0,), "0.0000 (trial 0)"),
    ],
)
@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_the_best_value_follows_the_direction_and_the_first_of_equals_stays(
    objective, values, best, stream, clock, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "200")
    shown = stream()
    line = ProgressLine(objective, 9, 0, None, shown)
    for number, value in enumerate(values):
        clock.now += 1
        line.trial(number, "ended", value)
    last = re.findall(r"best \w+ (\S+ \(trial \d+\))", shown.getvalue())[-1]
    assert last == best


class TestTerminal:
    def search(self, terminal: Terminal, clock: Clock) -> ProgressLine:
        """Three trials of four epochs, the second of which fails."""
        line = ProgressLine(ACCURACY, 30, 0, None, terminal)
        for number, value in enumerate((0.5, None, 0.75)):
            for place in range(4):
                clock.now += 1
                line.epoch(epoch(number, place))
            line.trial(number, "failed: some long reason" if value is None else "completed", value)
        return line

    def test_it_is_one_line_that_is_redrawn(self, clock, monkeypatch):
        monkeypatch.setenv("COLUMNS", "200")
        terminal = Terminal()
        self.search(terminal, clock)
        assert terminal.getvalue().count("\r") > 12
        # Only the failed trial leaves a line behind.
        assert len(terminal.screen()) == 2
        assert terminal.screen()[0].startswith("trial 1 failed: some long reason | 2/30 trials | ")
        assert terminal.screen()[1].startswith(
            "3/30 trials | best val_accuracy 0.7500 (trial 2) | 900 trials/h"
        )

    def test_it_is_never_longer_than_the_terminal(self, clock, width):
        terminal = Terminal()
        line = ProgressLine(ACCURACY, 30, 0, None, terminal)
        for number in range(3):
            clock.now += 1
            line.epoch(epoch(number, 0))
            line.trial(number, "completed", 0.5)
        line.close()
        # One column stays free: a full line would move the cursor to the next.
        assert max(map(len, terminal.redraws())) == width - 1

    def test_a_shorter_text_leaves_nothing_of_a_longer_one(self, clock, monkeypatch):
        monkeypatch.setenv("COLUMNS", "200")
        terminal = Terminal()
        line = ProgressLine(ACCURACY, 30, 0, None, terminal)
        clock.now += 1
        line.epoch(epoch(123456789, 123456789))
        clock.now += 1
        line.epoch(epoch(1, 1))
        assert terminal.screen() == ["trial 1, epoch 2: 0/30 trials"]

    def test_closing_leaves_it_clean(self, clock, width):
        terminal = Terminal()
        line = ProgressLine(ACCURACY, 30, 0, None, terminal)
        clock.now += 1
        line.trial(0, "completed", 0.5)
        line.close()
        assert terminal.screen() == [""]
        assert terminal.getvalue().endswith("\r")

    def test_what_is_said_stays_above_it(self, clock, width):
        terminal = Terminal()
        line = ProgressLine(ACCURACY, 30, 0, None, terminal)
        clock.now += 1
        line.trial(0, "completed", 0.5)
        line.say("hello")
        assert terminal.screen() == ["hello", ""]

    def test_it_is_not_redrawn_for_every_epoch(self, clock, monkeypatch):
        monkeypatch.setenv("COLUMNS", "80")
        terminal = Terminal()
        line = ProgressLine(ACCURACY, 30, 0, None, terminal)
        for place in range(100):
            clock.now += 0.01
            line.epoch(epoch(0, place))
        # A second of epochs, redrawn each fifth of it.
        assert 3 <= terminal.getvalue().count("\r") <= 5
