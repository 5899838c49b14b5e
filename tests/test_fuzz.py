"""Files and command lines that nobody would write: each is used, or refused with one line a fault.

A thousand of each, or as many as `REGATTA_FUZZ` says.
"""

import contextlib
import io
import os
from collections.abc import Sequence

import pytest
import test_space
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.__main__ import main
from pipeline.options import COMMANDS

# A line that takes longer than this hangs, as people see it; the first one imports much.
_SECONDS = 20.0
_EXAMPLES = int(os.environ.get("REGATTA_FUZZ", "1000"))
_NAMES = sorted({option.name for table in COMMANDS.values() for option in table})
_TEXTS = (
    st.text(max_size=30)
    | st.sampled_from(
        ["", "-1", "0", "1e400", "nan", "../..", "$(id)", "a\nb", "\0", "iris", "table", "x.py:Y"]
    )
    | st.sampled_from(
        ["postgresql://u:sesame@h/d", "http://u:sesame@h", "sqlite:///x", "models:/x@y", "-", "--"]
    )
    | st.integers().map(str)
    | st.floats().map(str)
)
_ARGUMENTS = st.one_of(
    st.tuples(st.sampled_from(_NAMES), _TEXTS).map(lambda pair: [f"--{pair[0]}={pair[1]}"]),
    st.tuples(st.sampled_from(_NAMES) | st.text(max_size=8), _TEXTS).map(lambda two: [f"--{two[0]}", two[1]]),
    _TEXTS.map(lambda text: [text]),
)
_LINES = st.tuples(
    st.sampled_from(sorted(COMMANDS)) | st.text(max_size=8), st.lists(_ARGUMENTS, max_size=5)
).map(lambda parts: [parts[0], *(word for words in parts[1] for word in words)])


class Through(BaseException):
    """A command line that is checked, and would now be worked on."""


def work(*_: object, **__: object) -> None:
    raise Through


@pytest.fixture
def _no_work(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("empty"))
    for place in (
        "pipeline.engines.backend.choose",
        "pipeline.benchmark.command.benchmark",
        "pipeline.prediction.command.predict",
        "pipeline.cleaning.clean",
    ):
        monkeypatch.setattr(place, work)


def said(line: Sequence[str]) -> tuple[object, str]:
    """The exit code of a command line, None where it got through, and what it wrote to standard error."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(line)
        except Through:
            code = None
        except SystemExit as error:  # -h
            code = error.code
    return code, err.getvalue()


@pytest.mark.slow
@pytest.mark.usefixtures("_no_work")
@given(line=_LINES)
@settings(
    max_examples=_EXAMPLES,
    deadline=_SECONDS * 1000,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_command_line_is_worked_on_or_refused_in_lines(line: list[str]) -> None:
    code, text = said(line)
    assert "Traceback" not in text
    assert "sesame" not in text or "sesame" in "".join(word for word in line if "://" not in word)
    if code is None or code == 0:
        return
    assert code == 2, text
    assert text
    assert all(part.startswith("pipeline: ") for part in text.rstrip("\n").split("\n"))


@pytest.mark.slow
@given(tables=test_space.SOUND | test_space.JUNK)
@settings(
    max_examples=_EXAMPLES, deadline=_SECONDS * 1000, database=None, suppress_health_check=list(HealthCheck)
)
def test_any_space_file_is_read_or_refused_in_lines(tables: dict) -> None:
    test_space.check(tables)
