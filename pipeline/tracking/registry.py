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
_RUN, _PLACED, _OF = "pipeline.run", "pipeline.entered_as", "pipeline.made_of"


@dataclass(frozen=True)
class Version:
    """A version of a registered model: its number, its tags, and the aliases that it has now."""

    number: str
    tags: Mapping[str, str]
    aliases: frozenset[str] = frozenset()


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
    aliases = _aliases(client, name)
    if CHAMPION not in aliases:
        return None
    number = aliases[CHAMPION]
    return Version(number, dict(client.get_model_version(name, number).tags), _of_number(aliases, number))


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


def entered(client: Client, name: str, run_id: str, made_of: str) -> Version | None:
    """The version that the run has added of the same, and that got its alias; None if there is none.

    made_of: as of `add`.
    """
    found = [version for version in _of_run(client, name, run_id) if version.tags.get(_OF) == made_of]
    return next((version for version in found if _is_placed(version)), None)


def add(parent: Parent, name: str, model_id: str, made_of: str, tags: Mapping[str, str]) -> str:
    """Adds a logged model as a version, with tags; its number.

    What the run had added before, and was ended before it gave it an alias, is taken away: only a version
    that has no alias and never had one. One that has its alias, and whose run was ended before it noted so,
    is noted now: it may be in use.

    made_of: what the model is made of, so that `entered` knows it again.

    Raises:
        RunError: the registry refuses.
    """
    for version in _of_run(parent.client, name, parent.run_id):
        if not _is_placed(version):
            parent.client.delete_model_version(name, version.number)
        elif _PLACED not in version.tags:
            alias = min(version.aliases)
            parent.client.set_model_version_tag(name, version.number, _PLACED, alias)
    # It tells what it does, where a progress line may stand.
    with contextlib.redirect_stderr(io.StringIO()), _quiet("mlflow.tracking._model_registry.fluent"):
        try:
            own = {_RUN: parent.run_id, _OF: made_of}
            version = mlflow.register_model(f"models:/{model_id}", name, tags={**tags, **own})
        except Exception as error:  # of each kind of store's own family
            raise RunError(f"the model cannot be registered as {name}: {first_line(error)}") from error
    return str(version.version)


def has_entered(client: Client, name: str, run_id: str) -> bool:
    """Whether the run has added a version that got its alias."""
    return any(map(_is_placed, _of_run(client, name, run_id)))


def point(client: Client, name: str, alias: str, number: str) -> None:
    """Moves an alias to a new version."""
    client.set_registered_model_alias(name, alias, number)
    client.set_model_version_tag(name, number, _PLACED, alias)


def _is_placed(version: Version) -> bool:
    """Whether it got an alias: the note of it comes after the alias, which may have gone on since."""
    return bool(version.aliases) or _PLACED in version.tags


def _of_run(client: Client, name: str, run_id: str) -> list[Version]:
    found = client.search_model_versions(f"name = '{name}' and tags.`{_RUN}` = '{run_id}'")
    aliases = _aliases(client, name)
    return [
        Version(str(version.version), dict(version.tags), _of_number(aliases, str(version.version)))
        for version in found
    ]


def _aliases(client: Client, name: str) -> dict[str, str]:
    """Each alias of a name's versions, with the version's number; none of a name that is not there."""
    models = client.search_registered_models(f"name = '{name}'")
    return {alias: str(number) for alias, number in models[0].aliases.items()} if models else {}


def _of_number(aliases: Mapping[str, str], number: str) -> frozenset[str]:
    return frozenset(alias for alias, its in aliases.items() if its == number)


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
