"""The command line: what is found before Keras is imported ends with code 2, a message, no files."""

import errno
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pipeline
from pipeline import entry, tasks
from pipeline.__main__ import main
from pipeline.errors import UserError
from pipeline.options import COMMANDS
from pipeline.source import OWN

ROOT = Path(__file__).parent.parent
WITH_A_STUDY = [
    command for command, table in COMMANDS.items() if any(option.name == "study" for option in table)
]


@pytest.fixture(autouse=True)
def _nothing_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every command here is refused, so it must leave its folder as empty as it was."""
    monkeypatch.chdir(tmp_path)
    yield
    assert list(tmp_path.iterdir()) == []


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """The lines that a refused command writes, without the program's name in front."""
    code = main(arguments)
    out, err = capsys.readouterr()
    assert code == 2
    assert out == ""
    assert "Traceback" not in err
    lines = err.rstrip("\n").split("\n")
    assert all(line.startswith("pipeline: ") for line in lines)
    return [line.removeprefix("pipeline: ") for line in lines]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["search", "--task", "irs"],
            f"task: must be one of {', '.join((*tasks.NAMES, *OWN))} (did you mean iris?)"
            " or FILE.py:NAME, but is 'irs'",
        ),
        (
            ["search", "--sampler=tp"],
            "sampler: must be one of tpe, random, cmaes, grid, gp (did you mean tpe?), but is 'tp'",
        ),
        (["search", "--trials", "0"], "trials: must be a whole number from 1 to 1000000, but is '0'"),
        (["search", "--seed", "-1"], "seed: must be a whole number from 0 to 4294967295, but is '-1'"),
        (["search", "--timeout", "inf"], "timeout: must be a number of seconds > 0, but is 'inf'"),
        (["search", "--trails", "3"], "trails: unknown parameter; did you mean trials?"),
        (["search", "--trails=3"], "trails: unknown parameter; did you mean trials?"),
        # No abbreviations: an option that is new one day must not change what old commands mean.
        (["search", "--tria", "3"], "tria: unknown parameter; did you mean trials?"),
        (["ensemble", "--members", "x"], "members: must be a whole number from 1 to 1000, but is 'x'"),
    ],
)
def test_a_parameter_that_cannot_be_used_is_refused(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert refused(capsys, *arguments) == [message]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: command"),
        (["--trials=3"], "the following arguments are required: command"),
        (["search", "iris"], "unknown arguments: iris"),
        (["search", "-n", "3"], "unknown arguments: -n 3"),
        (["search", "--trials"], "argument --trials: expected one argument"),
    ],
)
def test_arguments_that_are_no_parameters_are_refused(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert refused(capsys, *arguments) == [message]


def test_an_unknown_command_is_told_which_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = refused(capsys, "serch")
    assert "'serch'" in line
    assert all(command in line for command in COMMANDS)


def test_all_faults_come_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    lines = refused(
        capsys, "search", "--foo", "1", "--trails=3", "--trials", "0", "--task", "irs", "--pruner", "x"
    )
    assert [line.split(":")[0] for line in lines] == ["foo", "trails", "task", "trials", "pruner"]


@pytest.mark.parametrize("command", WITH_A_STUDY)
@pytest.mark.parametrize(
    "name",
    [
        "it's",
        'the "best"',
        "two words",
        " iris",
        "iris\n",
        "a\nb",
        "$(touch x)",
        "`touch x`",
        "a;b",
        "a|b",
        "a/b",
        "../x",
        "..",
        ".hidden",
        "a\\b",
        "*",
        "größe",
        "C:",
        "x" * 101,
    ],
)
def test_a_study_name_that_is_no_folder_name_is_refused(
    capsys: pytest.CaptureFixture[str], command: str, name: str
) -> None:
    assert refused(capsys, command, "--study", name) == [
        "study: must be 1 to 100 letters, digits, dots, dashes or underscores, the first a letter or a digit,"
        f" but is {name!r}"
    ]


@pytest.mark.parametrize("name", ["-x", "--task"])
def test_a_study_name_that_looks_like_an_option_is_refused(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert refused(capsys, "search", "--study", name) == ["argument --study: expected one argument"]
    (line,) = refused(capsys, "search", f"--study={name}")
    assert line.endswith(f"but is {name!r}")


@pytest.mark.parametrize("command", WITH_A_STUDY)
@pytest.mark.parametrize(
    "url", ["postgresql://user:sesame@host/db", "postgresql://host/db?user=user&password=sesame"]
)
def test_a_storage_with_a_password_is_refused_and_not_repeated(
    capsys: pytest.CaptureFixture[str], command: str, url: str
) -> None:
    (line,) = refused(capsys, command, "--study", "mine", "--storage", url)
    assert line.startswith("storage: must not carry a password")
    assert "PIPELINE_STORAGE" in line
    assert "PGPASSWORD" in line
    assert "sesame" not in line


@pytest.mark.parametrize(
    "arguments",
    [
        ["--storage", "postgresql://user:sesame@host/db", "--trials", "0"],
        ["--storag", "postgresql://user:sesame@host/db"],
        ["--storag=postgresql://user:sesame@host/db"],
        ["postgresql://user:sesame@host/db"],
        ["-s", "postgresql://user:sesame@host/db"],
        ["--study", "postgresql://user:sesame@host/db"],
        ["--space", "--storage", "postgresql://user:sesame@host/db"],
    ],
    ids=[
        "beside another fault",
        "misspelt",
        "misspelt with =",
        "alone",
        "short",
        "as study",
        "after another",
    ],
)
def test_a_password_is_not_repeated_whatever_else_is_wrong(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert "sesame" not in "\n".join(refused(capsys, "search", *arguments))


def test_a_url_where_the_command_is_missing_keeps_its_password(capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = refused(capsys, "postgresql://user:sesame@host/db")
    assert "invalid choice: 'postgresql://user:***@host/db'" in line


@pytest.mark.parametrize(
    ("line", "then"),
    [
        (["clean", "--study=s"], "begins anew"),
        (["clean", "--study=s", "--apply=true"], "removes the rest"),
        (["report", "--study=s"], "begins anew"),
        (["ensemble", "--study=s"], "goes on with the study"),
    ],
)
def test_who_is_interrupted_is_told_what_the_same_command_does(
    line: list[str], then: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.entry.run", interrupted)
    assert main(line) == 130
    assert capsys.readouterr().err == f"pipeline: interrupted; the same command {then}\n"


@pytest.mark.parametrize("backend", ["theano", "TensorFlow", "tensorflow "])
def test_a_backend_that_keras_does_not_have_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    monkeypatch.setenv("KERAS_BACKEND", backend)
    assert refused(capsys, "search") == [
        f"KERAS_BACKEND: must be one of tensorflow, jax, torch, but is {backend!r}"
    ]


@pytest.mark.parametrize("arguments", [["--help"], *([command, "--help"] for command in COMMANDS)], ids=str)
def test_help_names_what_there_is(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 0
    out = capsys.readouterr().out
    named = COMMANDS if len(arguments) == 1 else [f"--{option.name} " for option in COMMANDS[arguments[0]]]
    assert [name for name in named if name not in out] == []


def test_python_users_get_the_same_refusals() -> None:
    with pytest.raises(UserError, match=r"^trails: unknown parameter; did you mean trials\?$"):
        pipeline.search(trails=3)
    with pytest.raises(UserError, match=r"^study: must be 1 to 100 letters"):
        pipeline.search(study="a b")


def test_the_task_and_not_only_the_study_is_checked_when_the_study_has_a_name() -> None:
    with pytest.raises(UserError, match=r"^task: must be one of"):
        entry.run("search", {"study": "mine", "task": "irs"})


def test_a_typing_error_is_answered_before_anything_heavy_is_imported(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "pipeline", "search", "--task", "irs"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    imported = {
        line.rsplit("|", maxsplit=1)[1].strip().partition(".")[0]
        for line in done.stderr.splitlines()
        if re.match(r"import time:\s+\d", line)
    }
    said = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert done.returncode == 2
    assert done.stdout == ""
    assert [line.partition(" must")[0] for line in said] == ["pipeline: task:"]
    assert "pipeline" in imported
    assert imported & {"keras", "mlflow", "tensorflow", "jax", "torch", "sklearn", "matplotlib"} == set()


def test_a_full_disk_is_told_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "studies/iris/journal.log")

    monkeypatch.setattr("pipeline.entry.run", full)
    assert main(["search"]) == 1
    assert capsys.readouterr().err == (
        "pipeline: the disk is full (studies/iris/journal.log): where there is room again, the same command"
        " goes on\n"
    )


@pytest.mark.parametrize("code", [0, 3, "well"])
def test_a_command_that_something_ends_has_failed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: int | str
) -> None:
    def ends(*_: object) -> None:
        sys.exit(code)

    monkeypatch.setattr("pipeline.entry.run", ends)
    assert main(["search"]) == 1
    said = f"pipeline: failed: code that it runs ends the program: exit code {code}\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("share", ["0", "-0.5", "1.5", "nan", "half"])
def test_a_share_of_memory_is_above_0_to_1(capsys: pytest.CaptureFixture[str], share: str) -> None:
    (line,) = refused(capsys, "search", f"--memory_fraction={share}")
    assert line == f"memory_fraction: must be a number > 0 and ≤ 1, but is {share!r}"


@pytest.mark.parametrize(
    ("backend", "said"),
    [("jax", "0.4"), ("tensorflow", "memory_fraction: is JAX's, but Keras runs on tensor")],
)
def test_jax_is_told_its_share_of_memory_before_it_wakes(backend: str, said: str) -> None:
    program = """
import os, sys
from pipeline.engines import backend
try:
    backend.choose("fit", 0.4)
except ValueError as error:
    sys.exit(str(error))
assert "jax" not in sys.modules
print(os.environ["XLA_PYTHON_CLIENT_MEM_FRACTION"])
"""
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert (done.stdout or done.stderr).startswith(said)
