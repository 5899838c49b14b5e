r"""Lanes against `model.fit`, in trial-epochs a second: the same models, rows, epochs and batch sizes.

    python -m benchmarks.throughput --tasks iris,imdb --lanes 8 --output throughput.json

Rows are random numbers in the shapes of the real sets. Early stopping is off, each epoch has its validation,
and the first two epochs do not count, as some contenders still compile in the second. Contenders take turns,
in processes of their own, round after round, so that a machine that changes its speed does so for all.
Figures are medians over all epochs of all rounds.

(a) is `model.fit` on TensorFlow as people call it, (a') the faster of two ways in which an expert tunes it,
(b) `model.fit` on JAX, (c) one lane of our own program. Without TensorFlow, (b) is the reference. The share
is that of the rate of matrix products on all devices.

It needs only JAX, Keras and NumPy. Where Keras is not installed and cannot be, a folder with it will do:

    pip install --target vendored --no-deps --no-compile --only-binary :all: \
        --python-version 3.12 --platform manylinux_2_28_x86_64 \
        keras absl-py rich markdown-it-py mdurl pygments namex optree typing-extensions packaging
    python -m benchmarks.throughput --vendored vendored --lanes 1,2,4,8,16,32,64,128,256,512,1024
"""

import argparse
import importlib.util
import itertools
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import contenders
from benchmarks.synthetic import SHAPES, TASKS, how
from pipeline.benchmark import children, machine
from pipeline.benchmark.speed import Speed, shown, table, together
from pipeline.errors import RunError

_TUNED = ("tensorflow-xla", "tensorflow-graph")
# Losses of one training in two programs, in float32: how far apart they may be.
_TOLERANCE = 1e-3


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures all that was asked for and prints it; 1 if anything failed or a lane learned otherwise."""
    given = _parse(arguments)
    if given.child:
        contenders.main(json.loads(given.child))
        return 0
    if given.vendored:
        folder = str(given.vendored.resolve())
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH")]))
        sys.path.insert(0, folder)
    print(machine.described(), file=sys.stderr)
    found: dict[str, Any] = {"machine": machine.described(), "measured": []}
    with tempfile.TemporaryDirectory(prefix="regatta-") as cache:
        for asked in _plan(given):
            _measure(asked, cache, found["measured"])
            if given.output:
                given.output.write_text(json.dumps(found, indent=1))
    text, right = report(found["measured"])
    print(f"{found['machine']}\n\n{text}")
    return 0 if right else 1


def _measure(asked: dict[str, Any], cache: str, measured: list[dict[str, Any]]) -> None:
    name = f"{asked['task']}, round {asked['round']}, {asked['contender']} {asked['lanes']}"
    backend = "jax" if asked["contender"] in ("jax", "lanes") else "tensorflow"
    try:
        speed = children.measure("benchmarks.throughput", asked, backend, cache)
    except RunError as error:
        print(f"{name}: {error}", file=sys.stderr, flush=True)
        measured.append({**asked, "failed": str(error)})
        return
    measured.append({**asked, "speed": asdict(speed)})
    print(f"{name}: {shown(speed.rate)} trial-epochs/s", file=sys.stderr, flush=True)


def _plan(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """What is measured, in its order: lanes between the others, every second round backwards."""
    others = ["jax"]
    if importlib.util.find_spec("tensorflow"):
        others = ["tensorflow", "jax", *_TUNED]
    lanes = sorted({1, *given.lanes})
    for task in given.tasks:
        batch, epochs = how(task)
        turns = [
            (contender, count)
            for pair in itertools.zip_longest(((other, 1) for other in others), (("lanes", n) for n in lanes))
            for contender, count in filter(None, pair)
        ]
        for number in range(given.rounds):
            for contender, count in turns if number % 2 == 0 else reversed(turns):
                yield {
                    "task": task,
                    "contender": contender,
                    "lanes": count,
                    "round": number,
                    "batch": given.batch or batch,
                    "epochs": given.epochs or epochs,
                    "rows": given.rows,
                    "compare": number == 0 and contender == "lanes",
                }


def report(measured: Sequence[dict[str, Any]]) -> tuple[str, bool]:
    """The tables of what was measured, and whether all of it is there and right."""
    speeds: dict[tuple[str, str, int], list[Speed]] = {}
    notes = sorted({f"devices: {one['speed']['facts']['devices']}" for one in measured if _has_devices(one)})
    right = True
    for one in measured:
        if "failed" in one:
            notes.append(f"{one['task']}, {one['contender']}, {one['lanes']} lanes: {one['failed']}")
            right = False
            continue
        speed = Speed(**one["speed"])
        speeds.setdefault((one["task"], one["contender"], one["lanes"]), []).append(speed)
        if "first_losses" in speed.facts:
            lane, fit = speed.facts["first_losses"]
            same = abs(lane - fit) <= _TOLERANCE * max(1.0, abs(fit))
            right &= same
            notes.append(
                f"{one['task']}, {one['lanes']} lanes, no dropout: the first epoch's loss is {lane:.6f}"
                f" in a lane and {fit:.6f} by fit: {'equal' if same else 'NOT EQUAL'}"
            )
    batches = {one["task"]: one["batch"] for one in measured}
    rates, compiling = [], []
    for (task, contender, lanes), found in sorted(speeds.items()):
        if contender == "lanes":
            others = _references(task, speeds)
            first = [task, str(batches[task]), str(lanes)]
            rates.append([*first, *_rates(found, others)])
            compiling.append([*first, *_compiling(found, others)])
    heads = ["task", "batch", "lanes"]
    rate_heads = ["trial-epochs/s", "(a)", "(a')", "(b)", "(c)"]
    rate_heads += ["lanes/(a)", "lanes/(a')", "lanes/(b)", "lanes/(c)", "GFLOP/s", "matmul GFLOP/s", "share"]
    compile_heads = ["compiling (s)", "from cache (s)", "(a), each trial (s)", "(a') (s)", "(b) (s)"]
    parts = [table(heads + rate_heads, rates), table(heads + compile_heads, compiling), "\n".join(notes)]
    return "\n\n".join(parts), right


def _has_devices(one: dict[str, Any]) -> bool:
    return "speed" in one and "devices" in one["speed"]["facts"]


def _references(
    task: str, speeds: dict[tuple[str, str, int], list[Speed]]
) -> tuple[Speed | None, Speed | None, Speed | None, Speed | None]:
    """What lanes are compared with: (a), (a'), (b), (c)."""

    def of(contender: str) -> Speed | None:
        found = speeds.get((task, contender, 1))
        return together(found) if found else None

    tuned = [speed for speed in map(of, _TUNED) if speed]
    best = max(tuned, key=lambda speed: speed.rate) if tuned else None
    return of("tensorflow"), best, of("jax"), of("lanes")


def _rates(found: list[Speed], others: Sequence[Speed | None]) -> list[str]:
    speed = together(found)
    flops = speed.rate * speed.facts["flops_of_epoch"]
    matmul = statistics.median(one.facts["matmul_flops"] for one in found)
    return [
        shown(speed.rate),
        *(shown(other.rate if other else None) for other in others),
        *(shown(speed.rate / other.rate if other else None) for other in others),
        shown(flops / 1e9),
        shown(matmul / 1e9),
        f"{flops / matmul:.1%}",
    ]


def _compiling(found: list[Speed], others: Sequence[Speed | None]) -> list[str]:
    # In the first round nothing is in the cache of compiled programs yet.
    first, *later = (one.ready_seconds for one in found)
    return [
        shown(first),
        shown(statistics.median(later) if later else None),
        *(shown(other.ready_seconds if other else None) for other in others[:3]),
    ]


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.throughput",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--tasks", type=_tasks, default=list(SHAPES), help="separated by commas, of " + ", ".join(TASKS)
    )
    parser.add_argument("--lanes", type=_counts, default=[8], help="lane counts, separated by commas")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--epochs", type=int, help="that are measured; each task's own if not given")
    parser.add_argument("--batch", type=int, help="rows of a gradient step; each task's own if not given")
    parser.add_argument("--rows", type=int, help="to learn from, at most, and for the validation")
    parser.add_argument("--vendored", type=Path, help="a folder with Keras, where it is not installed")
    parser.add_argument("--output", type=Path, help="a JSON file with every measured epoch")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _tasks(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in TASKS]:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; there are {', '.join(TASKS)}")
    return names


def _counts(text: str) -> list[int]:
    return [int(count) for count in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
