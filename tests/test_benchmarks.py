"""The measurements: what they count and compare, how they show it, and that they run at all."""

import dataclasses
import itertools
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import every_task, many_trials, memory, searches, synthetic, throughput, whole_search
from benchmarks.peers import __main__ as peers
from benchmarks.peers import picture
from benchmarks.peers.contenders import TimeIsOver, Watch
from benchmarks.peers.curve import Curve, of_json, report
from pipeline import options
from pipeline.benchmark import children, command, speed
from pipeline.benchmark.speed import Speed
from pipeline.errors import RunError, UserError

ROOT = Path(__file__).parent.parent


def measured(contender: str, lanes: int, seconds: float, **facts: Any) -> dict[str, Any]:
    facts = {"flops_of_epoch": 1e9, "matmul_flops": 4e9, **facts}
    found = {"lanes": lanes, "seconds": [seconds], "ready_seconds": 7.0, "total_seconds": 9.0, "facts": facts}
    return {"task": "iris", "contender": contender, "lanes": lanes, "batch": 40, "round": 0, "speed": found}


def cells(text: str, line: str) -> dict[str, str]:
    """A line of a Markdown table by its heads; `line` is how it begins."""
    for part in text.split("\n\n"):
        rows = [row.strip("| ").split(" | ") for row in part.splitlines() if row.startswith("|")]
        for row in rows[2:]:
            if " | ".join(row).startswith(line):
                return dict(zip(rows[0], row, strict=True))
    raise AssertionError(f"no line {line}")


# Arithmetic


def model(task: str) -> tuple[Any, Any]:
    from pipeline import tasks
    from pipeline.benchmark import measure

    data = synthetic.data(task, rows=8)
    return measure.build(tasks.find(task), data, 0), data


def test_flops_of_dense_layers_are_counted_by_hand() -> None:
    from benchmarks import flops

    built, _ = model("iris")
    widths = (4, 64, 128, 128, 64, 64, 3)
    by_hand = [2 * a * b for a, b in itertools.pairwise(widths)]
    assert flops.forward(built) == by_hand
    # Forward, the kernels' gradients, and the inputs' but for the first layer's; the validation forward.
    back = sum(by_hand) + sum(by_hand[1:])
    assert flops.epoch(built, 90, 30) == 90 * (sum(by_hand) + back) + 30 * sum(by_hand)


def test_flops_of_convolutions_are_counted_by_hand() -> None:
    from benchmarks import flops

    built, _ = model("mnist")
    assert flops.forward(built) == [
        2 * 28 * 28 * 5 * 5 * 1 * 6,
        2 * 10 * 10 * 5 * 5 * 6 * 16,
        2 * 1 * 1 * 5 * 5 * 16 * 120,
        2 * 120 * 84,
        2 * 84 * 10,
    ]


def test_flops_of_other_layers_are_not_guessed() -> None:
    import keras

    from benchmarks import flops

    separable = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.DepthwiseConv2D(3)])
    with pytest.raises(TypeError, match="DepthwiseConv2D"):
        flops.forward(separable)


# Rows


@pytest.mark.parametrize("task", synthetic.SHAPES)
def test_random_rows_have_the_shapes_that_the_task_takes(task: str) -> None:
    built, data = model(task)
    shape = synthetic.SHAPES[task]
    assert data.train.inputs.shape == (8, *shape.inputs)
    assert np.isfinite(built.evaluate(data.train.inputs, data.train.targets, verbose=0)).all()


def test_random_rows_are_the_same_each_time() -> None:
    first, second = (synthetic.data("iris").train for _ in range(2))
    assert np.array_equal(first.one_input, second.one_input)
    assert (first.rows, synthetic.data("iris").validation.rows) == (90, 30)


def test_models_differ_in_their_numbers_and_have_every_technique_on() -> None:
    from pipeline import tasks
    from pipeline.benchmark import measure

    first, second = (measure.settings(tasks.find("iris"), number) for number in (0, 1))
    assert first["learning_rate"] != second["learning_rate"]
    assert first["dropout"] == 0.2
    assert first["max_norm"] == 3.0
    assert measure.settings(tasks.find("iris"), 0, dropout=0.0)["dropout"] == 0.0


# What is measured, and how it is shown


def test_a_rate_counts_all_lanes_and_is_of_the_median_epoch() -> None:
    assert Speed(8, [0.5, 0.1, 0.5], 1.0, 2.0).rate == 16


def test_measurements_of_several_rounds_become_one() -> None:
    one = speed.together([Speed(1, [1.0, 2.0], 3.0, 9.0), Speed(1, [3.0], 5.0, 11.0)])
    assert (list(one.seconds), one.ready_seconds, one.total_seconds) == ([1.0, 2.0, 3.0], 4.0, 10.0)


def test_a_speed_goes_from_process_to_process() -> None:
    one = Speed(2, [0.25], 1.0, 2.0, {"devices": "2 × cpu"})
    assert Speed.from_json(one.as_json()) == one


def test_the_report_compares_lanes_with_each_reference() -> None:
    found = [
        measured("tensorflow", 1, 1.0),
        measured("tensorflow-xla", 1, 0.5),
        measured("tensorflow-graph", 1, 0.8),
        measured("jax", 1, 0.25),
        measured("lanes", 1, 0.2),
        measured("lanes", 8, 0.4),
    ]
    text, right = throughput.report(found)
    line = cells(text, "iris | 40 | 8")
    assert right
    assert line["trial-epochs/s"] == "20"
    ratios = {"lanes/(a)": "20", "lanes/(a')": "10", "lanes/(b)": "5", "lanes/(c)": "4"}
    assert {name: line[name] for name in ratios} == ratios
    # 20 epochs a second of 1e9 operations, on a machine of 4e9.
    assert (line["GFLOP/s"], line["share"]) == ("20", "500.0%")


def test_the_report_does_without_tensorflow() -> None:
    text, right = throughput.report([measured("jax", 1, 0.25), measured("lanes", 1, 0.2)])
    line = cells(text, "iris | 40 | 1")
    assert right
    assert (line["(a)"], line["lanes/(a')"], line["lanes/(b)"]) == ("–", "–", "1.25")


@pytest.mark.parametrize(("lane", "equal"), [(1.0004, True), (1.01, False)])
def test_the_report_says_whether_lanes_learn_what_fit_learns(lane: float, equal: bool) -> None:
    text, right = throughput.report([measured("lanes", 1, 0.2, first_losses=[lane, 1.0])])
    assert right is equal
    assert ("NOT EQUAL" in text) is not equal


def test_the_report_says_what_failed() -> None:
    failed = {**measured("lanes", 512, 1.0), "failed": "out of memory"}
    del failed["speed"]
    text, right = throughput.report([measured("lanes", 1, 0.2), failed])
    assert not right
    assert "iris, lanes, 512 lanes: out of memory" in text


def test_contenders_take_turns_and_turn_round(monkeypatch: pytest.MonkeyPatch) -> None:
    plan: list[tuple[str, int, int]] = []

    def note(asked: dict[str, Any], cache: str, found: list[dict[str, Any]]) -> None:
        plan.append((asked["contender"], asked["lanes"], asked["round"]))
        found.append(measured(asked["contender"], asked["lanes"], 1.0))

    monkeypatch.setattr(throughput, "_measure", note)
    assert throughput.main(["--tasks", "iris", "--lanes", "8"]) == 0
    first, second = ([one[:2] for one in plan if one[2] == number] for number in (0, 1))
    assert first[:4] == [("tensorflow", 1), ("lanes", 1), ("jax", 1), ("lanes", 8)]
    assert second == first[::-1]


def test_a_process_that_fails_ends_with_its_last_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.py").write_text("raise SystemExit('no such device')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(RunError, match=r"measuring lanes failed: no such device"):
        children.measure("broken", {"contender": "lanes"}, "jax", str(tmp_path))


# The command


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("task", "iriss", r"task: must be one of .*did you mean iris\?"),
        ("trials", "0", "trials: must be a whole number from 1 to 1000"),
        ("epochs", "some", "epochs: must be a whole number"),
        ("size", "tiny", "size: must be one of full, small"),
        ("lanes", "4", "lanes: unknown parameter"),
    ],
)
def test_the_command_checks_its_parameters(name: str, value: str, rule: str) -> None:
    with pytest.raises(UserError, match=rule):
        options.values("benchmark", {name: value})


def test_the_command_shows_both_ways(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked_of = {}

    def measure(module: str, asked: dict[str, Any], keras_backend: str, cache: str) -> Speed:
        asked_of[keras_backend] = asked
        lanes = asked["contender"] == "lanes"
        return Speed(8, [0.1], 12.0, 13.0) if lanes else Speed(1, [0.2], 3.0, 32.0)

    monkeypatch.setattr(children, "measure", measure)
    command.benchmark(options.values("benchmark", {}))
    said = capsys.readouterr().out
    assert "lanes train 16 times as many trial-epochs a second" in said
    assert asked_of["jax"] == {**asked_of["tensorflow"], "contender": "lanes"}
    assert asked_of["jax"]["batch"] == 40
    assert cells(said, "`model.fit`")["compiling (s)"] == "3 a trial"


@pytest.mark.slow
def test_the_command_measures_this_machine() -> None:
    said = run(["-m", "pipeline", "benchmark", "--trials", "2", "--epochs", "1"])
    assert float(cells(said, "lanes, 2 side by side")["trial-epochs a second"]) > 0


# The scripts


@pytest.mark.slow
def test_lanes_are_measured_where_only_jax_keras_and_numpy_are(tmp_path: Path) -> None:
    hidden = ("tensorflow", "mlflow", "optuna", "sklearn", "matplotlib", "jinja2", "h5py", "psutil")
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "from importlib.machinery import PathFinder\n"
        "class Some(PathFinder):\n"
        "    @classmethod\n"
        "    def find_spec(cls, name, path=None, target=None):\n"
        f"        hidden = name.partition('.')[0] in {hidden!r}\n"
        "        return None if hidden else PathFinder.find_spec(name, path, target)\n"
        "sys.meta_path[:] = [Some if finder is PathFinder else finder for finder in sys.meta_path]\n"
    )
    output = tmp_path / "found.json"
    arguments = ["--tasks", "iris", "--lanes", "2", "--rounds", "1", "--epochs", "1", "--rows", "45"]
    said = run(["-m", "benchmarks.throughput", *arguments, "--output", str(output)], PYTHONPATH=str(tmp_path))
    line = cells(said, "iris | 40 | 2")
    assert line["(a)"] == "–"
    assert float(line["lanes/(b)"]) > 0
    assert said.count(": equal") == 2
    assert len(json.loads(output.read_text())["measured"]) == 3


@pytest.mark.slow
def test_a_whole_search_is_measured_against_the_script() -> None:
    said = run(["-m", "benchmarks.whole_search", "--trials", "2", "--script-trials", "1", "--epochs", "2"])
    warm = cells(said, "search, programs compiled before")
    assert all(float(warm[name]) > 0 for name in ("seconds", *whole_search.METRICS))


def test_scores_are_read_from_what_a_search_prints() -> None:
    said = """study posts | task posts: 240 rows

model          test age_mae          test score               trained as
baseline       0.9493 [0.8, 1.1]     0.7719 [0.6899, 0.8588]  the baseline settings
champion       0.9493 [0.8, 1.1]     0.7719 [0.6899, 0.8588]  trial 0
ensemble       0.8933 [0.7, 1.0]     0.7630 [0.6816, 0.8492]  0.8 × trial 0, 0.2 × trial 1
best possible                        0.1631                   known of generated rows

champion: batch_size=64
"""
    metric, found = every_task.scores(said)
    assert metric == "score"
    assert found == {
        "baseline": "0.7719 [0.6899, 0.8588]",
        "champion": "0.7719 [0.6899, 0.8588]",
        "ensemble": "0.7630 [0.6816, 0.8492]",
        "best possible": "0.1631",
    }


@pytest.mark.slow
def test_a_search_of_a_task_by_each_engine_is_timed_and_its_scores_are_shown() -> None:
    arguments = ["--tasks", "iris", "--trials", "2", "--epochs", "2"]
    said = run(["-m", "benchmarks.every_task", *arguments])
    for engine in ("fit", "lanes"):
        line = cells(said, f"iris | {engine}")
        assert float(line["seconds"]) > float(line["startup_seconds"]) > 0
        assert all(re.fullmatch(r"0\.\d{4} \[.*\]", line[model]) for model in every_task.MODELS[:3])
        assert line["best possible"] == "–"


def test_a_space_of_fixed_length_stops_nothing_early(tmp_path: Path) -> None:
    import tomllib

    found = tomllib.loads(searches.iris_space(tmp_path, 100).read_text())
    own = tomllib.loads((ROOT / "search_spaces" / "iris.toml").read_text())
    assert found["budget"] == {**own["budget"], "epochs": 100, "patience": 100_000}
    assert found["space"] == own["space"]


def test_memory_is_flat_within_a_tenth() -> None:
    samples = [(1, 500), (100, 1000), (500, 1300), (999, 1099), (1000, 9000)]
    assert memory.report(samples, 100, 1000)[1]
    assert not memory.report([(100, 1000), (999, 1101)], 100, 1000)[1]
    with pytest.raises(SystemExit, match="more trials"):
        memory.report([(100, 1000), (1000, 1000)], 100, 1000)


def test_many_trials_are_shown_by_the_hundred() -> None:
    # Ten trials a second; of the processor 20 ms a trial at first, and 40 ms later.
    samples = [
        many_trials.Sample(n, n / 10, n / 50 if n <= 130 else 2.6 + (n - 130) / 25, n / 100, 2**20 * n, 2048)
        for n in (0, 10, 60, 130, 180, 250)
    ]
    assert [(first.trials, last.trials) for first, last in many_trials.blocks(samples)] == [
        (10, 130),
        (130, 250),
    ]
    text = many_trials.report(samples, {"journal": 2**20}, {"report": 4.0})
    first, last = cells(text, "10 to 130"), cells(text, "130 to 250")
    assert first["ms a trial"] == last["ms a trial"] == "100"
    assert (first["of the processor"], last["of the processor"]) == ("20", "40")
    assert (last["most MiB"], last["KiB on their way"]) == ("250", "2")
    assert "| journal | 1.0 MiB |" in text
    assert "| report | 4.0 s |" in text


def test_trials_are_counted_in_mlflows_store(workplace: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient()
    for tags, status in (
        ({"pipeline.trial": "0"}, "FINISHED"),
        ({"pipeline.trial": "1"}, "RUNNING"),
        ({}, "FINISHED"),
    ):
        client.set_terminated(client.create_run("0", tags=tags).info.run_id, status)
    assert memory.finished(searches.store(workplace)) == 1
    assert memory.finished(workplace / "none.db") == 0


def run(arguments: list[str], **more: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**environment, **more},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# Peers


def test_a_peers_curve_shows_the_best_score_so_far() -> None:
    curve = Curve("one", ((4.0, 0.5), (1.0, 0.7), (9.0, 0.6), (2.0, 0.9)), 9.5, {"best": 0.4}, 12.0)
    assert curve.best("minimize") == [(1.0, 0.7), (4.0, 0.5)]
    assert curve.best("maximize") == [(1.0, 0.7), (2.0, 0.9)]
    assert curve.at(3.0, "minimize") == 0.7
    assert curve.at(0.5, "minimize") is None
    assert of_json(json.loads(json.dumps(dataclasses.asdict(curve)))) == curve
    empty = Curve("none", (), 10.0, {})
    lines = report([curve, empty], "val_log_loss", "minimize", 10.0).splitlines()
    assert "val_log_loss at 2 s" in lines[0]
    assert [cell.strip() for cell in lines[2].split("|")[1:7]] == [
        "one",
        "4",
        "0.7000",
        "0.5000",
        "0.5000",
        "0.4000",
    ]
    assert [cell.strip() for cell in lines[3].split("|")[1:5]] == ["none", "0", "–", "–"]


def test_a_peers_trial_counts_only_in_time() -> None:
    now = Watch(time.time(), 1000.0)
    now.note(0.5)
    now.note(None)
    now.check()
    assert [score for _, score in now.points] == [0.5]
    over = Watch(time.time() - 2000.0, 1000.0)
    over.note(0.5)
    assert over.points == []
    with pytest.raises(TimeIsOver):
        over.check()


def test_peers_are_drawn_into_a_picture(tmp_path: Path) -> None:
    curves = [Curve("one", ((1.0, 0.7), (4.0, 0.5)), 9.5, {}), Curve("none", (), 10.0, {})]
    picture.draw(curves, "val_log_loss", "minimize", 10.0, "iris", tmp_path / "peers.png")
    assert (tmp_path / "peers.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_peers_search_one_after_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "--seconds=45",
        "--epochs=2",
        "--contenders=random,optuna",
        f"--output={tmp_path / 'p.json'}",
    ]
    assert peers.main(arguments) == 0
    curves = json.loads((tmp_path / "p.json").read_text())["curves"]
    assert [curve["contender"] for curve in curves] == ["random", "optuna"]
    for curve in curves:
        assert curve["points"]
        assert all(0 < moment <= 45 for moment, _ in curve["points"])
        assert np.isfinite(curve["test"]["best"])
    assert "| random" in capsys.readouterr().out
