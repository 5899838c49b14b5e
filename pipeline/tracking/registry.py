"""MLflow's model registry: versions of a model, and the aliases that say which one is in use."""

import contextlib
import io
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import mlflow

from pipeline.errors import RunError, UserError
from pipeline.secrets import first_line
from pipeline.tracking.connection import Client
from pipeline.tracking.models import JUDGED_FILE, MODEL_FILE
from pipeline.tracking.parent import TASK, Parent
from pipeline.tracking.recorder import REFIT

CHAMPION, CHALLENGER = "champion", "challenger"
_RUN, _PLACED = "pipeline.run", "pipeline.entered_as"


@dataclass(frozen=True)
class Version:
    """A version of a registered model: its number and its tags."""

    number: str
    tags: Mapping[str, str]


def check(client: Client, name: str, task: str) -> None:
    """Sees that versions for the task can be added under the name.

    Raises:
        UserError: the registry refuses, or the name's champion is a model of another task.
    """
    try:
        present = champion(client, name)
    except RunError as error:
        raise UserError(f"register: the model registry cannot be used: {error}") from None
    other = present.tags.get(TASK) if present else None
    if present and other != task:
        whose = f"is of the task {other}" if other else "was not made by this pipeline"
        raise UserError(
            f"register: the champion of {name} (version {present.number}) {whose}, and cannot be compared"
            f" with one of {task}; give another name"
        )


def champion(client: Client, name: str) -> Version | None:
    """The version that has the alias `champion`; None if there is none."""
    models = client.search_registered_models(f"name = '{name}'")
    number = models[0].aliases.get(CHAMPION) if models else None
    if number is None:
        return None
    return Version(str(number), dict(client.get_model_version(name, number).tags))


def fetch(parent: Parent, name: str, version: Version, folder: Path, file: str = MODEL_FILE) -> Path:
    """A copy of a version's file in `folder`, which exists: one of those that `models` names.

    Raises:
        RunError: it is gone.
    """
    # What has learned from validation rows is judged by what it was before.
    if file == MODEL_FILE and REFIT in version.tags:
        file = JUDGED_FILE
    return _fetch(parent, name, version, folder, f"/artifacts/{file}")


def fetch_whole(parent: Parent, name: str, version: Version, folder: Path) -> Path:
    """A copy of all that a version is served from, in `folder`, which exists and is empty; see `fetch`.

    Raises:
        RunError: it is gone.
    """
    place = _fetch(parent, name, version, folder, "")
    if REFIT in version.tags:
        artifacts = place / "artifacts"
        (artifacts / JUDGED_FILE).replace(artifacts / MODEL_FILE)
    return place


def _fetch(parent: Parent, name: str, version: Version, folder: Path, part: str) -> Path:
    try:
        return Path(
            mlflow.artifacts.download_artifacts(
                f"models:/{name}/{version.number}{part}",
                dst_path=str(folder),
                tracking_uri=parent.store,
            )
        )
    except Exception as error:  # of each kind of artifact store's own family
        raise RunError(f"{name} version {version.number} cannot be read: {first_line(error)}") from error


def add(parent: Parent, name: str, model_id: str, tags: Mapping[str, str]) -> str:
    """Adds a logged model as a version, with tags; its number.

    A version that the run added before, and that never got an alias as the run was ended, is taken away.
    """
    for version in _of_run(parent.client, name, parent.run_id):
        if _PLACED not in version.tags:
            parent.client.delete_model_version(name, version.number)
    # It tells what it does, where a progress line may stand.
    with contextlib.redirect_stderr(io.StringIO()), _quiet("mlflow.tracking._model_registry.fluent"):
        try:
            version = mlflow.register_model(f"models:/{model_id}", name, tags={**tags, _RUN: parent.run_id})
        except Exception as error:  # of each kind of store's own family
            raise RunError(f"the model cannot be registered as {name}: {first_line(error)}") from error
    return str(version.version)


def has_entered(client: Client, name: str, run_id: str) -> bool:
    """Whether the run has added a version that got its alias."""
    return any(_PLACED in version.tags for version in _of_run(client, name, run_id))


def point(client: Client, name: str, alias: str, number: str) -> None:
    """Moves an alias to a new version."""
    client.set_registered_model_alias(name, alias, number)
    client.set_model_version_tag(name, number, _PLACED, alias)


def _of_run(client: Client, name: str, run_id: str) -> list[Version]:
    found = client.search_model_versions(f"name = '{name}' and tags.`{_RUN}` = '{run_id}'")
    return [Version(str(version.version), dict(version.tags)) for version in found]


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
