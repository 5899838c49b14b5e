"""What is said in several places is the same everywhere, and the rooms keep to the design's doors."""

import ast
import itertools
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from pipeline import options, tasks
from pipeline.source import OWN

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "pipeline").rglob("*.py"))
MLPROJECT = yaml.safe_load((ROOT / "MLproject").read_text())
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
README = (ROOT / "README.md").read_text()
# The command that an entry point runs; `main` is search.
ENTRY_POINTS = {"main": "search", **{command: command for command in options.COMMANDS}}


def test_conda_and_pyproject_pin_the_same_packages() -> None:
    conda = yaml.safe_load((ROOT / "conda.yaml").read_text())["dependencies"]
    (pip,) = [entry["pip"] for entry in conda if isinstance(entry, dict)]
    assert sorted(pip) == sorted(PYPROJECT["project"]["dependencies"])
    assert "python=3.11" in conda


@pytest.mark.parametrize(
    "requirement",
    [
        *PYPROJECT["project"]["dependencies"],
        *itertools.chain(*PYPROJECT["project"]["optional-dependencies"].values()),
    ],
)
def test_every_direct_dependency_is_pinned(requirement: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9-]+(\[[a-z0-9]+\])?==[0-9.]+", requirement)


def test_mlproject_has_an_entry_point_for_each_command() -> None:
    assert MLPROJECT["entry_points"].keys() == ENTRY_POINTS.keys()


@pytest.mark.parametrize(("entry_point", "command"), ENTRY_POINTS.items())
def test_mlproject_and_command_line_have_the_same_parameters_and_defaults(
    entry_point: str, command: str
) -> None:
    declared = MLPROJECT["entry_points"][entry_point]
    assert {name: spec["default"] for name, spec in declared["parameters"].items()} == {
        option.name: option.default for option in options.COMMANDS[command]
    }
    # Each is passed on, bare (MLflow quotes it), and joined by "=" so that no value is taken for a flag.
    passed = " ".join(f"--{option.name}={{{option.name}}}" for option in options.COMMANDS[command])
    assert declared["command"] == f"python -m pipeline {command} {passed}"


def test_mlproject_checks_no_types_of_its_own() -> None:
    # MLflow downloads what is declared a path or URI, and checks no other type.
    types = {
        spec["type"] for entry in MLPROJECT["entry_points"].values() for spec in entry["parameters"].values()
    }
    assert types == {"string"}


@pytest.mark.parametrize("command", options.COMMANDS)
def test_readme_tells_every_parameter_with_its_default(command: str) -> None:
    for option in options.COMMANDS[command]:
        assert re.search(
            rf"^\| `{option.name}` \| `?{re.escape(option.default) or 'none'}`? \|", README, re.M
        ), f"README: no row of {command}'s parameter {option.name} with the default {option.default!r}"


def test_readme_names_every_task() -> None:
    for name in (*tasks.NAMES, *OWN):
        assert f"`{name}`" in README


def test_task_names_are_the_modules_and_space_files() -> None:
    spaces = {file.stem for file in (ROOT / "search_spaces").glob("*.toml")}
    own = {name for name in spaces if name.partition("_")[0] in OWN}
    assert spaces - own == set(tasks.NAMES)
    assert all((ROOT / "pipeline" / "tasks" / f"{name}.py").exists() for name in (*tasks.NAMES, *OWN))


def test_version_is_said_once_more_only() -> None:
    import pipeline

    assert PYPROJECT["project"]["version"] == pipeline.__version__


# Each outside library has its own door: (library, places that may import it).
DOORS = {
    "mlflow": ("pipeline/tracking/",),
    "jax": ("pipeline/engines/",),
    "ray": ("pipeline/cluster.py",),
    "tensorflow": ("pipeline/engines/",),
    "matplotlib": ("pipeline/report/",),
    "jinja2": ("pipeline/report/",),
    "tensorboard": ("pipeline/tracking/curves.py",),
    "scipy": ("pipeline/evaluation/", "pipeline/ablation/", "pipeline/ensemble/simplex.py"),
    "optuna": (
        "pipeline/ablation/plan.py",
        "pipeline/drawing.py",
        "pipeline/journal.py",
        "pipeline/kerastuner/",
        "pipeline/pulse.py",
        "pipeline/ranges.py",
        "pipeline/samplers.py",
        "pipeline/space.py",
        "pipeline/space_tables.py",
        "pipeline/storage.py",
        "pipeline/study.py",
        "pipeline/study_opening.py",
        "pipeline/tally.py",
    ),
    "keras_tuner": (
        "pipeline/kerastuner/",
        "pipeline/tasks/exploring.py",
        "pipeline/tasks/hypermodels.py",
        "pipeline/tasks/hyperparameters.py",
    ),
    "sklearn": ("pipeline/datasets/",),
    "pandas": (
        "pipeline/carried/encoding.py",
        "pipeline/tracking/models.py",
        "pipeline/tracking/served.py",
        "pipeline/tracking/answering.py",
        "pipeline/prediction/",
        "pipeline/datasets/",
    ),
    "pyarrow": ("pipeline/prediction/", "pipeline/datasets/table_files.py"),
    "PIL": ("pipeline/tracking/models.py", "pipeline/carried/pictures.py", "pipeline/datasets/pictures.py"),
    "onnxruntime": ("pipeline/engines/exporting.py",),
}

# The direction of imports: a room may import itself and the rooms of the lines above it.
LAYERS = (
    ("forms", "carried"),
    ("errors", "values", "secrets", "seeds", "started", "stops", "launcher"),
    ("source", "lock", "revisions", "journal", "outages"),
    ("settings", "metrics"),
    ("answers",),
    ("ranges",),
    ("space_tables",),
    ("space",),
    ("datasets",),
    ("tasks",),
    ("engines",),
    ("options",),
    ("tracking", "storage", "samplers", "progress", "ensemble", "evaluation"),
    ("report", "exports", "promotion", "kerastuner"),
    ("delivery", "prediction"),
    ("tally", "drawing", "pulse"),
    ("study", "presence"),
    ("study_opening", "ledger"),
    ("loop",),
    ("finalists", "result", "stored", "warm_start"),
    ("study_record",),
    ("closing", "job"),
    ("provenance", "training", "recovery"),
    ("commands", "ablation", "benchmark", "cleaning", "reporting"),
    ("entry",),
    ("__init__", "__main__"),
)


def _imports(file: Path) -> set[str]:
    """Dotted names of all modules a file imports, late imports included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _place(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("file", SOURCES, ids=_place)
def test_outside_libraries_come_in_by_their_doors(file: Path) -> None:
    for library, doors in DOORS.items():
        if any(name.split(".")[0] == library for name in _imports(file)):
            assert _place(file).startswith(doors or ("none",)), f"{_place(file)} imports {library}"


@pytest.mark.parametrize("file", SOURCES, ids=_place)
def test_imports_follow_the_direction_of_the_design(file: Path) -> None:
    rank = {room: place for place, rooms in enumerate(LAYERS) for room in rooms}
    room = file.relative_to(ROOT / "pipeline").with_suffix("").parts[0]
    for name in _imports(file):
        parts = name.split(".")
        if parts[0] != "pipeline" or len(parts) < 2 or parts[1] not in rank:
            continue
        if parts[1] != room:
            assert rank[parts[1]] < rank[room], f"{room} imports {parts[1]}, which lies below it"


def test_every_room_has_its_place_in_the_direction() -> None:
    rooms = {file.relative_to(ROOT / "pipeline").with_suffix("").parts[0] for file in SOURCES}
    assert rooms == {room for layer in LAYERS for room in layer}


def test_only_evaluation_opens_the_test_split() -> None:
    openers = {
        _place(file)
        for file in SOURCES
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in ("unseal", "_split")
    }
    assert openers == {"pipeline/evaluation/scoring.py", "pipeline/values.py"}


def test_no_module_imports_a_private_name_of_another() -> None:
    for file in SOURCES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pipeline"):
                private = [alias.name for alias in node.names if alias.name.startswith("_")]
                assert not private, f"{_place(file)} imports {private}"
