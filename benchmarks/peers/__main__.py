"""This project against KerasTuner and Optuna: the same task, space, rows and time, one after another.

    python -m benchmarks.peers --task fashion_mnist --size small --seconds 120 --picture peers.png

Contenders are KerasTuner's RandomSearch, Hyperband and BayesianOptimization and a plain Optuna loop, each
round `model.fit` on TensorFlow, and this project's `search`, which trains in lanes and records all in MLflow.
Each is a process of its own, and its time begins with that process. A trial counts if it ends in time; a
training that does not is given up. All stop a training early and lower its learning rate by the rules of the
task's space file, which all search; its baseline is left out, as no other has one. The test score is of the
model that validated best, loaded or kept as each does that. Tasks with one output.
"""

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import searches
from benchmarks.peers import contenders, curve
from benchmarks.peers.curve import Curve
from pipeline import space as spaces
from pipeline.benchmark import machine


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints and draws."""
    given = _parse(arguments)
    if given.child:
        print(json.dumps(dataclasses.asdict(contenders.main(json.loads(given.child)))))
        return 0
    curves: list[Curve] = []
    metric, direction = "", ""
    with tempfile.TemporaryDirectory(prefix="regatta-") as place:
        space, metric, direction = _space(given.task, Path(place))
        for contender in given.contenders:
            print(f"{contender} …", file=sys.stderr, flush=True)
            asked = {
                **{
                    name: getattr(given, name)
                    for name in ("task", "size", "seconds", "epochs", "seed", "trials")
                },
                "contender": contender,
                "space": str(space),
                "metric": metric,
                "direction": direction,
            }
            curves.append(_run(asked, Path(place)))
            if given.output:
                told = [dataclasses.asdict(one) for one in curves]
                asked = {"machine": machine.described(("keras", "keras-tuner", "jax", "tensorflow")), **asked}
                given.output.write_text(json.dumps({**asked, "curves": told}, indent=1))
    print(machine.described(("keras", "keras-tuner", "optuna", "jax", "tensorflow")))
    print(f"\n{given.task}, {given.size}, {given.seconds:.0f} s each\n")
    print(curve.report(curves, metric, direction, given.seconds))
    if given.picture:
        from benchmarks.peers import picture

        title = f"{given.task} ({given.size}), {given.seconds:.0f} s each"
        picture.draw(curves, metric, direction, given.seconds, title, given.picture)
    return 0


def _space(task: str, folder: Path) -> tuple[Path, str, Any]:
    """The task's space file without its baseline and what comes after it; its objective and the direction."""
    file = folder / f"{task}.toml"
    file.write_text(spaces.file_of(task).read_text().partition("\n[baseline]")[0] + "\n")
    from pipeline import tasks

    objective = tasks.find(task).read_space(str(file)).objective
    return file, objective.metric, objective.direction


def _run(asked: dict[str, Any], place: Path) -> Curve:
    home = place / asked["contender"]
    home.mkdir()
    # An empty folder for compiled programs: compiling counts.
    environment = searches.environment(home, home / "cache")
    if asked["contender"] != "lanes":
        environment["KERAS_BACKEND"] = "tensorflow"
    began = time.time()
    command = [sys.executable, "-m", "benchmarks.peers", "--child", json.dumps({**asked, "began": began})]
    seconds, said = searches.timed(command, home, environment)
    return dataclasses.replace(curve.of_json(json.loads(said.splitlines()[-1])), seconds=seconds)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--task", default="iris")
    parser.add_argument("--size", default="small", choices=["full", "small"])
    parser.add_argument("--seconds", type=float, default=120.0, help="that each has")
    parser.add_argument("--epochs", type=int, help="of a trial, at most; the space file's if not given")
    parser.add_argument(
        "--trials", type=int, default=1000, help="of this project, at most; its lanes are sized for so many"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--contenders", type=lambda text: text.split(","), default=list(contenders.NAMES), help="with commas"
    )
    parser.add_argument("--output", type=Path, help="a JSON file with every trial")
    parser.add_argument("--picture", type=Path, help="a PNG file")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if unknown := set(given.contenders) - set(contenders.NAMES):
        parser.error(f"contenders: must be of {', '.join(contenders.NAMES)}, but one is {unknown.pop()}")
    return given


if __name__ == "__main__":
    sys.exit(main())
