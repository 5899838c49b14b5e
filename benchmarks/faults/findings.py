"""What a search has left in its study and in MLflow, and whether that is all that it should."""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

STUDY = "faults"
_TRIAL, _REASON = "pipeline.trial", "pipeline.reason"


@dataclass
class Findings:
    """What is wrong with what a search has left.

    lost: trials that are not finished in the study, or have no finished run. twice: finished runs beyond one
    for each trial. faults: everything else, in words.
    """

    lost: int = 0
    twice: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def fine(self) -> bool:
        return not self.lost and not self.twice and not self.faults


def trials_of(environment: Mapping[str, str], storage: str = "") -> dict[int, dict[str, Any]]:
    """Every trial's state, parameters and seed, as the study has them."""
    from pipeline.storage import connected

    with _as(environment), connected(storage, STUDY) as opened:
        study = opened.get_study_id_from_name(STUDY)
        return {
            trial.number: {
                "state": trial.state.name,
                "params": dict(trial.params),
                "seed": trial.user_attrs.get("seed"),
                "settings": trial.user_attrs.get("settings"),
            }
            for trial in opened.get_all_trials(study)
        }


def look(
    environment: Mapping[str, str], trials: int, undisturbed: Mapping[int, Any] | None, storage: str = ""
) -> Findings:
    """Looks at a study that is to be complete with so many trials.

    undisturbed: the same study as nobody has disturbed it, see `trials_of`; None to compare with nothing.
    """
    found = Findings()
    known = trials_of(environment, storage)
    finished = {number for number, trial in known.items() if trial["state"] == "COMPLETE"}
    found.lost = len(set(range(trials)) - finished)
    for number, trial in known.items():
        if trial["state"] in ("RUNNING", "WAITING"):
            found.faults.append(f"trial {number} is {trial['state']}")
        if undisturbed is not None and number in undisturbed:
            found.faults += [
                f"trial {number}: {part} is {trial[part]}, undisturbed {undisturbed[number][part]}"
                for part in ("params", "seed", "settings")
                if trial[part] != undisturbed[number][part]
            ]
    if undisturbed is not None and set(known) != set(undisturbed):
        found.faults.append(f"trials {sorted(set(known) ^ set(undisturbed))} are in one of both only")
    _look_at_runs(environment, trials, found)
    return found


def _look_at_runs(environment: Mapping[str, str], trials: int, found: Findings) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(environment["MLFLOW_TRACKING_URI"])
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs, token = [], None
    while True:
        page = client.search_runs(experiments, page_token=token)
        runs += list(page)
        token = page.token
        if not token:
            break
    statuses = Counter(run.info.status for run in runs)
    if statuses["RUNNING"]:
        found.faults.append(f"{statuses['RUNNING']} runs are said to run")
    finished = Counter(
        int(run.data.tags[_TRIAL])
        for run in runs
        if _TRIAL in run.data.tags and run.info.status == "FINISHED"
    )
    missing = set(range(trials)) - set(finished)
    found.lost = max(found.lost, len(missing))
    found.twice = sum(count - 1 for count in finished.values())
    for run in runs:
        tags = run.data.tags
        if _TRIAL not in tags:
            continue
        if run.info.status == "FINISHED":
            _look_at_a_finished_one(client, run, found)
        elif not tags.get(_REASON):
            found.faults.append(f"trial {tags[_TRIAL]}: a run is {run.info.status} without a reason")


def _look_at_a_finished_one(client: Any, run: Any, found: Findings) -> None:
    place = f"trial {run.data.tags[_TRIAL]}"
    steps = sorted(point.step for point in client.get_metric_history(run.info.run_id, "val_loss"))
    if steps != list(range(len(steps))) or len(steps) != run.data.metrics.get("epochs"):
        found.faults.append(f"{place}: its curve has the epochs {steps}")
    if "model.keras" not in {file.path for file in client.list_artifacts(run.info.run_id)}:
        found.faults.append(f"{place}: has no model")


class _as:
    """Some of the environment's variables for a block."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._wanted = {name: environment[name] for name in ("PIPELINE_HOME",)}
        self._before = {name: os.environ.get(name) for name in self._wanted}

    def __enter__(self) -> None:
        os.environ.update(self._wanted)

    def __exit__(self, *_: object) -> None:
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
