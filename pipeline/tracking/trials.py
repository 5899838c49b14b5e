"""Reads a study's child runs back from MLflow: their files and curves.

A child is named by a tag (`recorder.TRIAL` or `recorder.MEMBER`) and the tag's value: a trial's number, or a
`Member` as text.
"""

from collections.abc import Collection
from pathlib import Path

import mlflow
from mlflow.entities import Run

from pipeline.errors import RunError
from pipeline.secrets import first_line
from pipeline.tracking.parent import REASON, Parent
from pipeline.tracking.recorder import MEMBER, REFIT, TRIAL

_LABELS = (TRIAL, MEMBER, REFIT)

CLEANED = "pipeline.cleaned"
"""A tag of a child run whose weights and predictions were taken away."""


def fetch(parent: Parent, tag: str, label: object, name: str, folder: Path) -> Path:
    """A copy of a child's artifact in `folder`, which exists.

    Raises:
        RunError: the child's run or its artifact is gone.
    """
    info = _child(parent, tag, label).info
    target = folder / str(label)
    target.mkdir(exist_ok=True)
    try:
        # By its place: by the run's id, MLflow reads the whole run from its store three times.
        return Path(
            mlflow.artifacts.download_artifacts(
                f"{info.artifact_uri}/{name}", dst_path=str(target), tracking_uri=parent.store
            )
        )
    except Exception as error:  # of each kind of artifact store's own family
        raise RunError(
            f"trial {label}: its {name} cannot be read from MLflow: {first_line(error)}"
        ) from error


def curve(parent: Parent, tag: str, label: object, metric: str) -> list[float]:
    """A child's metric, an entry an epoch; empty if it has none of that name."""
    run_id = _child(parent, tag, label).info.run_id
    history = parent.client.get_metric_history(run_id, metric)
    return [point.value for point in sorted(history, key=lambda point: point.step)]


def metric(parent: Parent, tag: str, label: object, name: str) -> float:
    """A child's last value of a metric that it has."""
    return float(_child(parent, tag, label).data.metrics[name])


def ended(
    parent: Parent, tag: str, statuses: Collection[str] = ("FINISHED",), *, with_cleaned: bool = False
) -> set[str]:
    """The tag's values of the children that have it and ended in one of the statuses.

    with_cleaned: also of those whose weights were taken away.
    """
    return {
        run.data.tags[tag]
        for run in children(parent, tag)
        if run.info.status in statuses and (with_cleaned or CLEANED not in run.data.tags)
    }


def children(parent: Parent, tag: str) -> list[Run]:
    """All child runs that have the tag, the last begun first."""
    return list(parent.client.every_run(parent.experiment_id, f"{_of(parent)} and tags.`{tag}` LIKE '%'"))


def close_left(parent: Parent, alive: Collection[str], reason: str) -> int:
    """Closes the children that a process which is gone has left running; how many.

    alive: labels of the trials that are under way.
    """
    running = f"{_of(parent)} and attributes.status = 'RUNNING'"
    # All of them first: what is closed is on no later page.
    left = [
        run
        for run in parent.client.every_run(parent.experiment_id, running)
        if any(name in run.data.tags for name in _LABELS) and run.data.tags.get(TRIAL) not in alive
    ]
    for run in left:
        parent.client.set_tag(run.info.run_id, REASON, reason)
        parent.client.set_terminated(run.info.run_id, "KILLED")
    return len(left)


def _of(parent: Parent) -> str:
    """The filter of a parent's children."""
    return f"tags.`mlflow.parentRunId` = '{parent.run_id}'"


def _child(parent: Parent, tag: str, label: object) -> Run:
    runs = parent.client.search_runs(
        [parent.experiment_id],
        f"{_of(parent)} and tags.`{tag}` = '{label}' and attributes.status = 'FINISHED'",
        max_results=1,
    )
    if not runs:
        raise RunError(f"trial {label}: MLflow has no finished run of it under the parent {parent.run_id}")
    found: Run = runs[0]
    return found
