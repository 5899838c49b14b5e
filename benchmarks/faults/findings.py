"""What a search has left in its study and in MLflow, and whether that is all that it should."""

import os
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.faults.places import Place

_STUDY, _TRIAL, _REASON = "pipeline.study", "pipeline.trial", "pipeline.reason"
_MADE = frozenset({"report.html", "models/champion.keras", "models/ensemble.keras"})
_WATCHED = "val_loss"
_ATTRIBUTES = ("seed", "settings", "replay", "reason")

Trials = Mapping[int, Mapping[str, Any]]
"""What a study knows of each trial: state, params, value, seed, settings, replay, reason."""


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

    def add(self, other: "Findings", place: str) -> None:
        """Adds what was found elsewhere. place: its name."""
        self.lost += other.lost
        self.twice += other.twice
        self.faults += [f"{place}: {fault}" for fault in other.faults]


def trials_of(place: Place) -> dict[int, dict[str, Any]]:
    """Every trial, as the study has it; none where there is no such study."""
    from pipeline.storage import connected

    url = place.environment.get("PIPELINE_STORAGE", "")
    with _home(place.environment["PIPELINE_HOME"]), connected(url, place.study) as opened:
        try:
            study = opened.get_study_id_from_name(place.study)
        except KeyError:
            return {}
        return {
            trial.number: {
                "state": trial.state.name,
                "params": dict(trial.params),
                "value": trial.value,
                **{name: trial.user_attrs.get(name) for name in _ATTRIBUTES},
            }
            for trial in opened.get_all_trials(study)
        }


def seconds_of(place: Place) -> list[float]:
    """How long each finished trial was trained."""
    runs = [run for run in _runs(place) if _TRIAL in run.data.tags and run.info.status == "FINISHED"]
    return [run.data.metrics["seconds"] for run in runs]


def status_of_parent(place: Place) -> str:
    """The status of the study's run; empty before there is one."""
    return next((str(run.info.status) for run in _runs(place) if _STUDY in run.data.tags), "")


def look(place: Place, undisturbed: Trials | None, failed: Collection[int] = ()) -> Findings:
    """Looks at a study that is to be complete.

    undisturbed: the same study as nobody has disturbed it, see `trials_of`; None to compare with nothing.
    failed: trials that are to fail, each with its reason.
    """
    found, known = Findings(), trials_of(place)
    expected = set(range(place.trials)) - set(failed)
    states = {number: trial["state"] for number, trial in known.items()}
    found.lost = len(expected - {number for number, state in states.items() if state == "COMPLETE"})
    found.faults += [
        f"trial {number} is {state}" for number, state in states.items() if state in ("RUNNING", "WAITING")
    ]
    found.faults += [
        f"trial {number} is {states.get(number)}, and not FAIL"
        for number in failed
        if states.get(number) != "FAIL"
    ]
    if undisturbed is not None:
        found.faults += _differences(known, undisturbed)
    _look_at_runs(place, expected, found)
    return found


def _differences(known: Trials, undisturbed: Trials) -> list[str]:
    faults = []
    if set(known) != set(undisturbed):
        faults.append(f"trials {sorted(set(known) ^ set(undisturbed))} are in one of both only")
    for number in sorted(set(known) & set(undisturbed)):
        here, there = known[number], undisturbed[number]
        # What was trained on the same rows in the same order ends at the same bits.
        same = here["replay"] == there["replay"] and here["state"] == there["state"] == "COMPLETE"
        faults += [
            f"trial {number}: {part} is {here[part]}, undisturbed {there[part]}"
            for part in ("params", "seed", "settings", *(["value"] if same else []))
            if here[part] != there[part]
        ]
    return faults


def _look_at_runs(place: Place, expected: Collection[int], found: Findings) -> None:
    runs = _runs(place)
    if running := sum(run.info.status == "RUNNING" for run in runs):
        found.faults.append(f"{running} runs are said to run")
    finished = Counter(
        int(run.data.tags[_TRIAL])
        for run in runs
        if _TRIAL in run.data.tags and run.info.status == "FINISHED"
    )
    found.lost = max(found.lost, len(set(expected) - set(finished)))
    found.twice = sum(count - 1 for count in finished.values())
    for run in runs:
        tags = run.data.tags
        if _STUDY in tags:
            _look_at_the_parent(place, run, found)
        elif _TRIAL in tags and run.info.status == "FINISHED":
            _look_at_a_finished_one(place, run, found)
        elif _TRIAL in tags and not tags.get(_REASON):
            found.faults.append(f"trial {tags[_TRIAL]}: a run is {run.info.status} without a reason")
    parents = sum(_STUDY in run.data.tags for run in runs)
    if parents != 1:
        found.faults.append(f"the study has {parents} runs of its own")


def _look_at_the_parent(place: Place, run: Any, found: Findings) -> None:
    if run.info.status != "FINISHED":
        found.faults.append(f"the study's run is {run.info.status}: {run.data.tags.get(_REASON)}")
    names = {
        file.path
        for folder in (None, "models")
        for file in _client(place).list_artifacts(run.info.run_id, folder)
    }
    found.faults += [f"the study's run has no {name}" for name in sorted(_MADE - names)]


def _look_at_a_finished_one(place: Place, run: Any, found: Findings) -> None:
    name, client = f"trial {run.data.tags[_TRIAL]}", _client(place)
    steps = sorted(point.step for point in client.get_metric_history(run.info.run_id, _WATCHED))
    if steps != list(range(place.epochs)):
        found.faults.append(f"{name}: its curve has the epochs {steps}, and not {place.epochs}")
    if run.data.metrics.get("epochs") != place.epochs:
        found.faults.append(f"{name}: it has trained {run.data.metrics.get('epochs')} epochs")
    if "model.keras" not in {file.path for file in client.list_artifacts(run.info.run_id)}:
        found.faults.append(f"{name}: has no model")


def _runs(place: Place) -> list[Any]:
    """Every run of the place's experiment."""
    client = _client(place)
    experiment = client.get_experiment_by_name(place.environment["MLFLOW_EXPERIMENT_NAME"])
    if experiment is None:
        return []
    runs, token = list[Any](), None
    while True:
        page = client.search_runs([experiment.experiment_id], page_token=token)
        runs += list(page)
        token = page.token
        if not token:
            return runs


def _client(place: Place) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(place.environment["MLFLOW_TRACKING_URI"])


class _home:
    """Studies lie in a folder, for a block."""

    def __init__(self, home: str) -> None:
        self._home, self._before = home, os.environ.get("PIPELINE_HOME")

    def __enter__(self) -> None:
        os.environ["PIPELINE_HOME"] = self._home

    def __exit__(self, *_: object) -> None:
        if self._before is None:
            os.environ.pop("PIPELINE_HOME", None)
        else:
            os.environ["PIPELINE_HOME"] = self._before
