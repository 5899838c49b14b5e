"""The study's parent run: adopted from `mlflow run`, made, or found again when the study goes on."""

import contextlib
import json
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.utils.git_utils import get_git_commit
from mlflow.utils.mlflow_tags import (
    MLFLOW_DATASET_CONTEXT,
    MLFLOW_GIT_COMMIT,
    MLFLOW_PARENT_RUN_ID,
    MLFLOW_RUN_NAME,
    MLFLOW_SOURCE_NAME,
)
from mlflow.utils.time import get_current_time_millis

from pipeline.errors import RunError, UserError
from pipeline.secrets import first_line, hidden, redacted
from pipeline.tracking.connection import Client
from pipeline.values import Array, Data

STUDY, TASK, ENGINE, REASON, RESUMES = (
    "pipeline.study",
    "pipeline.task",
    "pipeline.engine",
    "pipeline.reason",
    "pipeline.resumes",
)
MADE_FOR = "pipeline.made_for"
"""A tag of the parent from its first moment on: the study's key."""
_CONTEXTS = {"train": "training", "validation": "validation", "test": "testing"}
# MLflow keeps at most 36 characters of a digest.
_DIGEST_LENGTH = 36
# And takes at most so many in one call.
_METRICS_AT_ONCE = 1000


class Parent:
    """The parent run of a study. Built by `open_parent`.

    resumed: whether it was there before. resuming: the run that `mlflow run` made for this continuation,
    now a child of the parent, or empty.
    """

    def __init__(self, client: Client, run: Run, *, resumed: bool, resuming: str) -> None:
        self.client = client
        self.run_id = str(run.info.run_id)
        self.experiment_id = str(run.info.experiment_id)
        self.store = str(client.tracking_uri)
        self.resumed = resumed
        self._resuming = resuming
        self._before = str(run.info.status) if resumed else "FAILED"

    @property
    def runs(self) -> tuple[str, ...]:
        """The ids of the parent and of the run of this continuation."""
        return tuple(filter(None, (self.run_id, self._resuming)))

    @property
    def before(self) -> str:
        """The status that the run had when it was found; `FAILED` of one that was made."""
        return self._before

    def tag(self, tags: Mapping[str, str]) -> None:
        self.client.log_batch(self.run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    def tag_of(self, name: str) -> str:
        """The run's tag; empty if it has none of that name."""
        return str(self.client.get_run(self.run_id).data.tags.get(name, ""))

    def tag_program(self, file: Path) -> None:
        """Says what made the run, where `mlflow run` has not: the git commit of the program's file."""
        commit = get_git_commit(str(file))
        if commit and MLFLOW_GIT_COMMIT not in self.client.get_run(self.run_id).data.tags:
            self.tag({MLFLOW_GIT_COMMIT: commit, MLFLOW_SOURCE_NAME: "pipeline"})

    def params(self, params: Mapping[str, str]) -> None:
        """What may never change within the study; MLflow refuses another value."""
        self.client.log_batch(self.run_id, params=[Param(key, value) for key, value in params.items()])

    def param_names(self) -> list[str]:
        return list(self.client.get_run(self.run_id).data.params)

    def metrics(self, metrics: Mapping[str, float]) -> None:
        now = get_current_time_millis()
        found = [Metric(key, float(value), now, 0) for key, value in metrics.items()]
        for first in range(0, len(found), _METRICS_AT_ONCE):
            self.client.log_batch(self.run_id, metrics=found[first : first + _METRICS_AT_ONCE])

    def metric_names(self) -> list[str]:
        return list(self.client.get_run(self.run_id).data.metrics)

    def file(self, file: Path, folder: str | None = None) -> None:
        self.client.log_artifact(self.run_id, str(file), folder)

    def remove(self, folder: str) -> None:
        """Takes away a folder of artifacts, if it is there."""
        try:
            if self.client.list_artifacts(self.run_id, folder):
                run = self.client.get_run(self.run_id)
                delete_artifacts(self, run.info.artifact_uri, folder)
        except Exception as error:  # of each kind of artifact store's own family; some cannot delete
            raise RunError(
                f"{folder}/ of run {self.run_id} cannot be removed: {first_line(error)}"
            ) from error

    def text(self, text: str, name: str) -> None:
        self.client.log_text(self.run_id, text, name)

    def has(self, name: str) -> bool:
        """Whether there is an artifact of that path."""
        return name in self.names(name.rpartition("/")[0])

    def names(self, folder: str = "") -> list[str]:
        """The paths of what lies in a folder of the artifacts."""
        return [str(file.path) for file in self.client.list_artifacts(self.run_id, folder or None)]

    def fetch(self, name: str, folder: Path) -> Path:
        """A copy of an artifact in a folder, which exists."""
        return Path(self.client.download_artifacts(self.run_id, name, str(folder)))

    def read(self, name: str) -> str:
        """An artifact's text."""
        with tempfile.TemporaryDirectory(prefix="regatta-") as folder:
            return self.fetch(name, Path(folder)).read_text(encoding="utf-8")

    def data(self, data: Data) -> None:
        """The data set's name, digests and sizes, one input for each split."""
        self.client.log_inputs(
            self.run_id,
            [_dataset(data, split, context) for split, context in _CONTEXTS.items()],
        )

    def begin(self) -> None:
        """A run that was there before goes on: it is RUNNING, and why it ended then is no more so.

        Raises:
            UserError: the store refuses.
        """
        if not self.resumed:
            return
        try:
            if REASON in self.client.get_run(self.run_id).data.tags:
                self.client.delete_tag(self.run_id, REASON)
            self.client.update_run(self.run_id, status="RUNNING")
        except RunError as error:
            raise UserError(f"the study's run cannot be opened: {error}") from None

    def end(self, status: str, reason: str = "", *, whole: bool = True) -> None:
        """Ends the run of this continuation, and the parent with it if it is the whole that ends."""
        for run_id in self.runs if whole else filter(None, (self._resuming,)):
            if reason:
                self.client.set_tag(run_id, REASON, reason)
            self.client.set_terminated(run_id, status)


def delete_artifacts(parent: Parent, uri: str, name: str) -> None:
    """Deletes a file or folder below a run's artifact URI; raises what its store raises.

    Some stores cannot delete, and not all of those raise.
    """
    get_artifact_repository(uri, tracking_uri=parent.store).delete_artifacts(name)


@contextlib.contextmanager
def ending(parent: Parent, last: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """The parent run is RUNNING in the block, and has its final status after it, however that ends.

    last: whether no other process goes on with the parent, which else is left as it is.
    """
    try:
        parent.begin()
        yield
    except KeyboardInterrupt:
        with contextlib.suppress(RunError):
            parent.end("KILLED", "interrupted", whole=last())
        raise
    except BaseException as error:
        with contextlib.suppress(RunError):  # the store itself may be what failed; the first error counts
            parent.end("FAILED", _said(error), whole=last())
        raise
    parent.end("FINISHED", whole=last())


def find_parent(client: Client, study: str, known: str) -> Parent:
    """The parent run of a study that is there, which this leaves as it is; arguments as of `open_parent`.

    Raises:
        UserError: the run is gone, or there never was one.
    """
    if not known:
        raise UserError(f"study {study}: has no MLflow run yet; search makes one")
    return Parent(client, _kept(client, study, known), resumed=True, resuming="")


def _said(error: BaseException) -> str:
    lines = redacted(hidden(str(error))).splitlines()
    return lines[0] if lines else type(error).__name__


def open_parent(client: Client, study: str, task: str, known: str, key: str = "") -> Parent:
    """The parent run of the study: one that was there is as it was until `ending`, a new one is RUNNING.

    Args:
        client: of the tracking store.
        study: the study's name.
        task: the experiment's name, where `mlflow run` has not chosen one.
        known: the parent run that the study's record names, or empty.
        key: of the study and no other, which its record has: a run that was made for it by a process that
            was killed before it could note that is found by it. Empty where there can be none.

    Raises:
        UserError: the study's run or the experiment is gone, or the store refuses.
    """
    # Taken once: a second search in this process must not adopt the same run.
    own = os.environ.pop("MLFLOW_RUN_ID", "")
    try:
        if known:
            return _resume(client, study, known, own)
        return _begin(client, study, task, own, key or uuid.uuid4().hex)
    except RunError as error:
        raise UserError(f"the study's run cannot be opened: {error}") from None


def _begin(client: Client, study: str, task: str, own: str, key: str) -> Parent:
    run = client.get_run(own) if own else _made(client, study, _experiment(client, task), key)
    run_id = str(run.info.run_id)
    for left in _made_for(client, key):
        if left.info.run_id != run_id and left.info.status == "RUNNING":
            client.set_tag(left.info.run_id, REASON, "its process was gone")
            client.set_terminated(left.info.run_id, "KILLED")
    client.set_tag(run_id, MADE_FOR, key)
    client.set_tag(run_id, MLFLOW_RUN_NAME, study)
    client.update_run(run_id, status="RUNNING")
    return Parent(client, run, resumed=False, resuming="")


def _made(client: Client, study: str, experiment: str, key: str) -> Run:
    """The run of an experiment that was made for the key before, where there is one; else a new one."""

    def make(store: MlflowClient) -> Run:
        # Also before it is tried again: the answer may be what was lost.
        before = next(
            iter(store.search_runs([experiment], f"tags.`{MADE_FOR}` = '{key}'", max_results=1)), None
        )
        return before or store.create_run(experiment, tags={MADE_FOR: key}, run_name=study)

    return client.patiently(make)


def _made_for(client: Client, key: str) -> list[Run]:
    """The runs that were made for a key, of whatever experiment was chosen then."""
    found: list[Run] = []
    token = None
    while True:
        page = client.search_experiments(page_token=token)
        experiments = [experiment.experiment_id for experiment in page]
        found += client.search_runs(experiments, f"tags.`{MADE_FOR}` = '{key}'")
        token = page.token
        if not token:
            return found


def _resume(client: Client, study: str, known: str, own: str) -> Parent:
    run = _kept(client, study, known)
    if own and own != known:
        client.set_tag(own, MLFLOW_PARENT_RUN_ID, known)
        client.set_tag(own, RESUMES, study)
        client.set_tag(own, MLFLOW_RUN_NAME, f"{study} (resumed)")
    return Parent(client, run, resumed=True, resuming=own if own != known else "")


def _kept(client: Client, study: str, run_id: str) -> Run:
    """The study's run; its trials' models lie under it, so there is no going on without it."""
    place = f"study {study}: its MLflow run {run_id}"
    advice = "or begin anew with another name by study="
    try:
        run: Run = client.get_run(run_id)
    except RunError as error:
        raise UserError(
            f"{place} is not in {redacted(str(client.tracking_uri))} ({error}); set MLFLOW_TRACKING_URI to"
            f" the store that has it, {advice}"
        ) from None
    if run.info.lifecycle_stage != "active":
        raise UserError(
            f"{place} was deleted; bring it back with `mlflow runs restore --run-id {run_id}`, {advice}"
        )
    return run


def _experiment(client: Client, task: str) -> str:
    chosen = os.environ.get("MLFLOW_EXPERIMENT_ID")
    if chosen:
        return chosen
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or task
    # As one, so that an answer that was lost does not make it anew.
    found = client.patiently(
        lambda store: (
            store.get_experiment_by_name(name) or store.get_experiment(store.create_experiment(name))
        )
    )
    if found.lifecycle_stage != "active":
        raise UserError(
            f"MLflow's experiment {name!r} was deleted; bring it back with `mlflow experiments restore -x"
            f" {found.experiment_id}`, or name another in MLFLOW_EXPERIMENT_NAME"
        )
    return str(found.experiment_id)


def _dataset(data: Data, split: str, context: str) -> DatasetInput:
    rows = {"train": data.train.rows, "validation": data.validation.rows, "test": data.test.rows}[split]
    inputs = data.train.inputs
    features = (
        [{"name": name, **_tensor(array)} for name, array in inputs.items()]
        if isinstance(inputs, Mapping)
        else [_tensor(inputs)]
    )
    dataset = Dataset(
        name=f"{data.name}-{split}",
        digest=data.digests[split][:_DIGEST_LENGTH],
        source_type="code",
        source=json.dumps({"source": data.source}),
        schema=json.dumps({"mlflow_tensorspec": {"features": json.dumps(features), "targets": None}}),
        profile=json.dumps({"num_rows": rows, "classes": len(data.classes)}),
    )
    return DatasetInput(dataset=dataset, tags=[InputTag(MLFLOW_DATASET_CONTEXT, context)])


def _tensor(array: Array) -> dict[str, object]:
    """MLflow's description of rows like these, as many as there may be."""
    spec = {"dtype": str(array.dtype), "shape": [-1, *array.shape[1:]]}
    return {"type": "tensor", "tensor-spec": spec}
