"""A program is compiled once for all of its trials, and never again where the cache is kept."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from lanes_harness import blobs, budget, each, in_lanes, lanes_engine, mlp

from pipeline.engines.lanes.program import Program

HERE = Path(__file__).parent
CHILD = """
import json, sys, tempfile
from pathlib import Path
from pipeline.engines import backend
backend.load()
import jax
counts = {"/jax/compilation_cache/cache_hits": 0, "/jax/compilation_cache/cache_misses": 0}
def count(event, **more):
    if event in counts:
        counts[event] += 1
jax.monitoring.register_event_listener(count)
from lanes_harness import blobs, budget, each, in_lanes, lanes_engine, mlp
folder = Path(tempfile.mkdtemp())
engine = lanes_engine(mlp, blobs(), budget(epochs=2), folder, 4)
trials = in_lanes(engine, each({}, {"dropout": 0.2}, {"l2": 0.1}))
print(json.dumps({"counts": list(counts.values()), "curves": [trial.curve for trial in trials.values()]}))
"""


def test_trials_of_one_signature_share_one_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    compile_ = Program.compile

    def counted(self: Program, values: object) -> None:
        made.append(self.lanes)
        compile_(self, values)

    monkeypatch.setattr(Program, "compile", counted)
    numbers = [
        {"dropout": 0.1 * n % 0.5, "l2": 0.01 * (n % 3), "learning_rate": 0.01 / (n + 1)} for n in range(12)
    ]
    engine = lanes_engine(mlp, blobs(), budget(epochs=3), tmp_path, 4)
    trials = in_lanes(engine, each(*numbers))
    assert len(trials) == 12
    assert made == [4]
    assert len({trial.outcome.replay.program for trial in trials.values()}) == 1
    # Three trials or more went through each lane.
    assert max(trial.outcome.replay.first_epoch for trial in trials.values()) >= 6


def test_another_batch_size_or_structure_is_another_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    compile_ = Program.compile
    monkeypatch.setattr(Program, "compile", lambda self, values: (made.append(1), compile_(self, values)))
    lanes = [{}, {"batch_size": 20}, {"units": 5}, {"l2": 0.1}, {"batch_size": 20, "l2": 0.1}]
    trials = in_lanes(lanes_engine(mlp, blobs(), budget(epochs=2), tmp_path, 2), each(*lanes))
    assert len(made) == 3
    programs = [trials[number].outcome.replay.program for number in range(5)]
    assert programs[0] == programs[3] != programs[1] == programs[4]
    assert len(set(programs)) == 3


def test_a_second_process_compiles_nothing_anew_and_finds_the_same_bits(tmp_path: Path) -> None:
    def run() -> dict:
        environment = os.environ | {
            "PIPELINE_CACHE": str(tmp_path),
            "PYTHONPATH": f"{HERE}:{HERE.parent.parent}",
        }
        environment.pop("JAX_COMPILATION_CACHE_DIR", None)
        done = subprocess.run(
            [sys.executable, "-c", CHILD], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    first, second = run(), run()
    assert first["counts"][1] > 0
    hits, misses = second["counts"]
    assert misses == 0
    assert hits > 0
    assert second["curves"] == first["curves"]
