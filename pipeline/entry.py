"""From a command's name and its raw parameters to the command: what can be checked quickly comes first."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pipeline import options, source, storage
from pipeline.engines import backend

if TYPE_CHECKING:
    from pipeline.result import Result


def run(command: str, given: Mapping[str, object]) -> "Result | None":
    """Checks the parameters and runs the command.

    Raises:
        UserError: a parameter, file, storage or study cannot be used.
        RunError: the command failed after it had started.
    """
    asked = options.values(command, given)
    if command == "benchmark":
        # It needs no Keras here: each backend trains in a process of its own.
        from pipeline.benchmark.command import benchmark

        benchmark(asked)
        return None
    if command == "predict":
        # Its model says what Keras runs on.
        from pipeline.prediction.command import predict

        predict(asked)
        return None
    if "task" in asked:
        storage.check_name(asked["study"] or source.study_of(asked["task"], source.of(asked)))
    else:
        storage.check_name(asked["study"])
    if asked.get("warm_start"):
        storage.check_name(asked["warm_start"], "warm_start")
    storage.check_url(asked["storage"] or "")
    if command == "clean":
        # It looks at no model.
        from pipeline.cleaning import clean

        clean(asked)
        return None
    backend.choose(asked.get("engine") or "auto", asked.get("memory_fraction"))
    # Only now, as Keras, which the commands import, must know its backend, and takes seconds.
    backend.load()
    from pipeline import commands
    from pipeline.ablation.command import ablate

    if command == "ablate":
        ablate(asked)
        return None
    if command == "report":
        from pipeline.reporting import report

        report(asked)
        return None
    from pipeline import recovery
    from pipeline.tracking import launched

    with launched.alive(recovery.folder()):
        return {"search": commands.search, "ensemble": commands.ensemble}[command](asked)
