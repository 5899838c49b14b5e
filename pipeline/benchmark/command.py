"""The command `benchmark`: this machine, one task, lanes against `model.fit` on TensorFlow."""

import tempfile
from collections.abc import Mapping
from typing import Any

from pipeline.benchmark import children, machine
from pipeline.benchmark.speed import Speed, shown, table
from pipeline.settings import BATCH_SIZE

# What each task's model is usually trained with; Keras's default otherwise.
BATCHES = {
    "iris": 40,
    "fashion_mnist": 128,
    "imdb": 512,
    "imdb_conv1d": 128,
    "question_answering": 128,
    "posts": 64,
    "dual_camera": 16,
    "separable_images": 64,
}


def benchmark(asked: Mapping[str, Any]) -> None:
    """Trains the same models both ways, each in a process of its own, and prints how fast.

    Raises:
        RunError: one of the processes failed.
    """
    batch = BATCHES.get(asked["task"], BATCH_SIZE.default)
    trials, epochs, task = asked["trials"], asked["epochs"], asked["task"]
    computed = "" if asked["precision"] == "float32" else f"; {asked['precision']}"
    print(
        f"{task}: {trials} trials of {epochs} epochs, after two to warm up; batch {batch}{computed}\n"
        f"{machine.described()}",
        flush=True,
    )
    found: dict[str, Speed] = {}
    # An empty folder for compiled programs, so that compiling is seen.
    with tempfile.TemporaryDirectory(prefix="regatta-") as cache:
        for contender, keras_backend in (("model.fit", "tensorflow"), ("lanes", "jax")):
            print(f"{contender} …", flush=True)
            what = {**asked, "batch": batch, "contender": contender}
            found[contender] = children.measure("pipeline.benchmark", what, keras_backend, cache)
    print("\n" + report(found["model.fit"], found["lanes"], trials), flush=True)


def report(fit: Speed, lanes: Speed, trials: int) -> str:
    """The table of both, and what it comes down to."""
    heads = ("training", "trial-epochs a second", "compiling (s)", "all in all (s)")
    lines = (
        ("`model.fit` on TensorFlow, one by one", shown(fit.rate), f"{shown(fit.ready_seconds)} a trial"),
        (f"lanes, {trials} side by side", shown(lanes.rate), f"{shown(lanes.ready_seconds)} once"),
    )
    totals = (shown(fit.total_seconds), shown(lanes.total_seconds))
    return (
        table(heads, [(*line, total) for line, total in zip(lines, totals, strict=True)])
        + f"\n\nlanes train {shown(lanes.rate / fit.rate)} times as many trial-epochs a second"
    )
