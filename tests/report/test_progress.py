"""Progress on standard error: what is left on a terminal, and streams that may not end a run."""

import contextlib
import errno
import io
import os
import pty
import re
import sys
import threading
import time

import pyte
import pytest

from daskumap.errors import ParameterError
from daskumap.report.progress import Bar, Lines, Silent, choose_progress

STEPS = (
    "scan",
    "unique.twins",
    "unique.rows",
    "partition.cells",
    "partition.assign",
    "partition.count",
    "partition.order",
    "partition.shuffle",
    "neighbors",
    "neighbors.merge",
    "calibrate",
    "symmetrize",
    "initialize",
    "layout",
    "publish",
    "report.neighbors",
    "report.rows",
    "report.distances",
    "report.ranks",
    "report.loss",
    "report.summary",
)
STAGES = list(dict.fromkeys(step.split(".")[0] for step in STEPS))


class Terminal:
    """A pseudo terminal; an emulator replays what it is sent."""

    def __init__(self, columns, rows):
        self.ours, theirs = pty.openpty()
        self.stream = os.fdopen(theirs, "w")
        self.screen = pyte.HistoryScreen(columns, rows, history=10_000)
        self.sent = b""
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        emulator = pyte.ByteStream(self.screen)
        with contextlib.suppress(OSError):  # what a terminal says once nobody writes to it any more
            while some := os.read(self.ours, 65536):
                self.sent += some
                emulator.feed(some)

    def lines(self):
        """Close the terminal; return what its scrollback and its screen hold."""
        self.stream.close()
        self.reader.join(10)
        columns = range(self.screen.columns)
        above = ["".join(line[column].data for column in columns) for line in self.screen.history.top]
        return [line.rstrip() for line in (*above, *self.screen.display) if line.strip()]


@pytest.fixture
def terminal(monkeypatch):
    """Make standard error a terminal of so many columns and rows."""
    made = []

    def make(columns=80, rows=24, kind="xterm-256color"):
        for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
            monkeypatch.delenv(name, raising=False)
        for name, value in {"COLUMNS": str(columns), "LINES": str(rows), "TERM": kind}.items():
            monkeypatch.setenv(name, value)
        made.append(Terminal(columns, rows))
        monkeypatch.setattr(sys, "stderr", made[-1].stream)
        return made[-1]

    yield make
    for one in made:
        one.stream.close()
        one.reader.join(10)
        os.close(one.ours)


def run(progress, steps=STEPS, tasks=3, pause=0.0):
    """Tell of steps from start to end, as a run does."""
    try:
        for step in steps:
            progress.start(step, tasks, 0)
            for task in range(tasks):
                progress.advance(task + 0.5)
                time.sleep(pause)
                progress.advance(task + 1)
            progress.finish()
    finally:
        progress.close()


def stages_of(lines):
    return [re.match(r"daskumap +(\w+)", line)[1] for line in lines]


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (40, 24), (80, 6), (22, 5)])
def test_a_terminal_keeps_one_line_a_stage(terminal, columns, rows):
    screen = terminal(columns, rows)
    run(choose_progress(True), pause=0.02)
    lines = screen.lines()
    assert stages_of(lines) == STAGES
    assert b"\x1b[2K" in screen.sent  # a bar was drawn over meanwhile
    if columns >= 40:
        assert b" % " in screen.sent
        assert re.fullmatch(r"daskumap  partition: 15 tasks, \d\.\d s", lines[2])


def test_a_bar_that_is_stopped_leaves_the_terminal_as_it_was(terminal):
    screen = terminal()
    progress = choose_progress(True)
    run(progress, STEPS[:8])
    progress.start("neighbors", 4, 0)
    progress.advance(2)
    progress.close()
    assert sys.stderr is screen.stream
    sys.stderr.write("the error\n")
    *stages, bar, error = screen.lines()
    assert stages_of(stages) == STAGES[:3]
    assert re.match(r"neighbors .* 50 %", bar)
    assert error == "the error"
    assert not screen.screen.cursor.hidden


def test_a_process_that_is_killed_leaves_the_cursor(terminal):
    screen = terminal()
    progress = choose_progress(True)
    progress.start("scan", 2, 0)
    deadline = time.monotonic() + 10
    while b"scan" not in screen.sent:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not screen.screen.cursor.hidden
    progress.close()


def test_what_others_write_stands_above_the_bar(terminal):
    screen = terminal()
    progress = choose_progress(True)
    progress.start("scan", 2, 0)
    sys.stderr.write("a warning\n")
    progress.advance(2)
    progress.finish()
    progress.close()
    assert [line.split(":")[0] for line in screen.lines()] == ["a warning", "daskumap  scan"]


def test_results_on_standard_output_are_not_moved(terminal, capsys):
    terminal()
    progress = choose_progress(True)
    progress.start("scan", 2, 0)
    sys.stdout.write("a result\n")
    progress.close()
    assert capsys.readouterr().out == "a result\n"


def test_two_fits_at_once_share_a_terminal(terminal):
    screen = terminal()
    first = choose_progress(True)
    first.start("scan", 2, 0)
    second = choose_progress(True)
    assert isinstance(second, Lines)
    assert not isinstance(second, Bar)
    run(second, ["layout"])
    first.finish()
    first.close()
    assert stages_of(screen.lines()) == ["layout", "scan"]


@pytest.mark.parametrize("kind", ["terminal", "file"])
def test_what_an_earlier_attempt_finished_is_not_told(terminal, monkeypatch, kind):
    screen, file = terminal(), io.StringIO()
    if kind == "file":
        monkeypatch.setattr(sys, "stderr", file)
    progress = choose_progress(True)
    for step, done in (("scan", 3), ("partition.cells", 3), ("partition.assign", 1), ("neighbors", 3)):
        progress.start(step, 3, done)
        if done < 3:
            progress.advance(3)
        progress.finish()
    progress.close()
    lines = screen.lines() if kind == "terminal" else file.getvalue().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("daskumap  partition: 2 tasks, ")


def test_a_terminal_that_cannot_draw_gets_lines(terminal):
    screen = terminal(kind="dumb")
    run(choose_progress(True))
    assert stages_of(screen.lines()) == STAGES
    assert b"\x1b" not in screen.sent


def test_a_file_gets_a_line_a_stage(monkeypatch):
    monkeypatch.setattr(sys, "stderr", file := io.StringIO())
    run(choose_progress(True))
    assert stages_of(file.getvalue().splitlines()) == STAGES


def test_a_file_hears_of_a_long_step_now_and_then(monkeypatch):
    monkeypatch.setattr(sys, "stderr", file := io.StringIO())
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    progress = choose_progress(True)
    progress.start("layout", 4, 1)
    for done in (1.0, 1.5, 2.0, 2.5, 3.0):
        now[0] += 20
        progress.advance(done)
    progress.finish()
    progress.close()
    assert file.getvalue().splitlines() == [
        "daskumap  layout: 38%, 200 s left",  # half a task took 40 s, 2.5 are left
        "daskumap  layout: 62%, 80 s left",
        "daskumap  layout: 3 tasks, 100.0 s",
    ]


class Bare:
    """A stream that knows no more than to write."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text


class Broken(Bare):
    """A stream that fails after so many texts."""

    def __init__(self, error, texts=0, tty=False):
        super().__init__()
        self.error, self.left, self.tty = error, texts, tty

    def isatty(self):
        return self.tty

    def write(self, text):
        if not self.left:
            raise self.error
        self.left -= 1
        super().write(text)


class NoAnswer(Bare):
    def isatty(self):
        raise ValueError("I/O operation on closed file")


@pytest.mark.parametrize("stream", [Bare(), NoAnswer()], ids=["no isatty", "isatty raises"])
def test_a_stream_without_isatty_gets_lines(monkeypatch, stream):
    monkeypatch.setattr(sys, "stderr", stream)
    run(choose_progress(True))
    assert stages_of(stream.text.splitlines()) == STAGES


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [None, object(), closed()], ids=["None", "no stream", "closed"])
def test_no_stream_is_silence(monkeypatch, stream):
    monkeypatch.setattr(sys, "stderr", stream)
    run(choose_progress(True))


@pytest.mark.parametrize("tty", [False, True], ids=["file", "terminal"])
@pytest.mark.parametrize(
    "error",
    [OSError(errno.EIO, "hung up"), OSError(errno.ENOSPC, "full"), BrokenPipeError(), ValueError("closed")],
    ids=["EIO", "ENOSPC", "EPIPE", "closed"],
)
def test_a_stream_that_fails_in_between_is_silence(terminal, monkeypatch, error, tty):
    terminal()  # for what the environment says of one
    stream = Broken(error, texts=2, tty=tty)
    monkeypatch.setattr(sys, "stderr", stream)
    run(choose_progress(True), pause=0.005)
    assert stream.text
    assert sys.stderr is stream


def test_a_reader_that_went_away_is_silence(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    stream = os.fdopen(writer, "w")
    monkeypatch.setattr(sys, "stderr", stream)
    run(choose_progress(True))
    with contextlib.suppress(BrokenPipeError):
        stream.close()


class Recorder:
    """A progress of a user, who knows nothing of `close`."""

    def __init__(self):
        self.heard = []

    def start(self, stage, tasks, done):
        self.heard.append(("start", stage, tasks, done))

    def advance(self, done):
        self.heard.append(("advance", done))

    def finish(self):
        self.heard.append(("finish",))


class Closing(Recorder):
    def close(self):
        self.heard.append(("close",))


@pytest.mark.parametrize("kind", [Recorder, Closing])
def test_an_object_of_the_user(kind):
    recorder = kind()
    run(choose_progress(recorder), ["scan"], tasks=1)
    expected = [("start", "scan", 1, 0), ("advance", 0.5), ("advance", 1), ("finish",)]
    assert recorder.heard == expected + [("close",)] * (kind is Closing)


@pytest.mark.parametrize("wanted", [False, None])
def test_silence(wanted, capsys):
    progress = choose_progress(wanted)
    assert isinstance(progress, Silent)
    run(progress)
    assert capsys.readouterr() == ("", "")


class Half:
    finish = None

    def start(self, stage, tasks, done):
        pass

    def __repr__(self):
        return "<Half>"


@pytest.mark.parametrize(
    ("wanted", "seen"),
    [
        ("yes", r"progress is 'yes', which lacks start, advance, finish\."),
        (1, r"progress is 1, which lacks start, advance, finish\."),
        (Half(), r"progress is <Half>, which lacks advance, finish\."),
        (Recorder, r"progress is <class '.*Recorder'>, which is a class, not an object\."),
        (print, r"which lacks start, advance, finish\."),
    ],
)
def test_other_objects_are_refused(wanted, seen):
    with pytest.raises(ParameterError, match=seen) as refused:
        choose_progress(wanted)
    assert "It must be True, False, or an object with the methods start(stage, tasks, done)" in str(
        refused.value
    )
