"""The child of the command `benchmark`: trains real models on a task's real rows, one way or the other."""

import json
import sys
from dataclasses import replace
from functools import partial
from typing import Any

from pipeline.engines import backend


def main(asked: dict[str, Any]) -> None:
    """Measures one contender and hands over the result."""
    backend.load()
    from pipeline import tasks
    from pipeline.benchmark import children, measure
    from pipeline.engines import precision

    task = tasks.find(asked["task"])
    task = replace(task, build=precision.building(task.build, asked["precision"]))
    data = task.load(asked["size"])
    trials, epochs, batch = asked["trials"], asked["epochs"], asked["batch"]
    make = partial(measure.build, task, data)
    if asked["contender"] == "lanes":
        children.answer(measure.Lanes(make, data, batch, trials, epochs).measure())
    else:
        children.answer(
            measure.in_turn([partial(make, number) for number in range(trials)], data, batch, epochs)
        )


if __name__ == "__main__":
    main(json.loads(sys.argv[sys.argv.index("--child") + 1]))
