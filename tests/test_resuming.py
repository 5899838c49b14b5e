"""A search that is killed within a trial: the same command goes on from the trial's last checkpoint."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

ROOT = Path(__file__).parent.parent
EPOCHS = {"lanes": 2000, "fit": 60}


def command(engine: str, space: Path) -> list[str]:
    asked = {
        "task": "iris",
        "engine": engine,
        "trials": 1,
        "epochs": EPOCHS[engine],
        "space": space,
        "study": "s",
        "checkpoint": 0.2,
        "export": "none",
    }
    if engine == "lanes":
        asked["lanes"] = 2
    return [
        sys.executable,
        "-m",
        "pipeline",
        "search",
        *(f"--{name}={value}" for name, value in asked.items()),
    ]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("engine", ["lanes", "fit"])
def test_a_killed_search_goes_on_in_the_middle_of_its_trial(engine: str, workplace: Path) -> None:
    space = workplace / "long.toml"
    text = (ROOT / "search_spaces" / "iris.toml").read_text(encoding="utf-8")
    # So that nothing but the epochs ends it.
    space.write_text(re.sub(r"(?m)^patience = .*$", "patience = 100000", text), encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    environment["PYTHONPATH"] = str(ROOT)
    kept = workplace / "studies" / "s" / "checkpoints"
    with (workplace / "first.log").open("w") as log:
        first = subprocess.Popen(command(engine, space), stdout=log, stderr=log, env=environment)
        try:
            ends = time.monotonic() + 400
            while not (kept / "0-0.npz").exists():
                assert first.poll() is None, (workplace / "first.log").read_text()
                assert time.monotonic() < ends
                time.sleep(0.05)
        finally:
            first.kill()
            first.wait()
    assert first.returncode == -signal.SIGKILL
    again = subprocess.run(
        command(engine, space), capture_output=True, text=True, env=environment, check=False
    )
    assert again.returncode == 0, again.stdout + again.stderr
    assert "1 trials trained again" in again.stdout
    (begun,) = re.findall(r"trial 0 goes on after epoch (\d+) from its checkpoint", again.stdout)
    assert 0 < int(begun) < EPOCHS[engine]

    client = MlflowClient()
    (experiment,) = client.search_experiments(filter_string="name = 'iris'")
    runs = {
        run.info.status: run
        for run in client.search_runs([experiment.experiment_id], "tags.`pipeline.trial` = '0'")
    }
    assert runs.keys() == {"KILLED", "FINISHED"}
    assert "pipeline.resumed_from" not in runs["KILLED"].data.tags
    run = runs["FINISHED"]
    assert run.data.tags["pipeline.resumed_from"] == begun
    assert run.data.metrics["epochs"] == EPOCHS[engine]
    for name in ("loss", "val_log_loss", "learning_rate"):
        points = client.get_metric_history(run.info.run_id, name)
        assert sorted(point.step for point in points) == list(range(EPOCHS[engine])), name
    values = sorted(client.get_metric_history(run.info.run_id, "val_log_loss"), key=lambda point: point.step)
    best = min(values, key=lambda point: (point.value, point.step))
    assert run.data.metrics["best_val_log_loss"] == best.value
    assert list(kept.iterdir()) == []
