"""What a study's child runs hold of their models in the artifact store, and taking it away."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.engines.engine import (
    CHECKPOINT_FILE,
    MODEL_FILE,
    PREDICTIONS_FILE,
    SEVERAL_PREDICTIONS_FILE,
)
from pipeline.errors import RunError
from pipeline.secrets import first_line, redacted
from pipeline.tracking import trials
from pipeline.tracking.parent import Parent, delete_artifacts
from pipeline.tracking.recorder import MEMBER, REFIT, TRIAL
from pipeline.tracking.trials import CLEANED
from pipeline.values import Member

# The model first: a run that has it is whole.
_FILES = (MODEL_FILE, PREDICTIONS_FILE, SEVERAL_PREDICTIONS_FILE, CHECKPOINT_FILE)


@dataclass(frozen=True)
class Holding:
    """A child run and its files.

    tag: what it was trained as (`TRIAL`, `MEMBER` or `REFIT`). place: its artifacts' URI. files: bytes by
    name, the model first; 0 where the store does not say. cleaned: whether it is tagged so.
    """

    run_id: str
    member: Member
    tag: str
    place: str
    files: Mapping[str, int]
    cleaned: bool

    @property
    def described(self) -> str:
        what = {TRIAL: "", MEMBER: ", trained as a member", REFIT: ", trained on all rows"}[self.tag]
        return f"{self.member.described}{what}"

    @property
    def has_model(self) -> bool:
        return MODEL_FILE in self.files


def held(parent: Parent) -> list[Holding]:
    """Every child run that has ended, in the order of their trials; one without any files has none here."""
    return sorted(
        (
            Holding(
                str(run.info.run_id),
                Member.of(run.data.tags[tag]),
                tag,
                str(run.info.artifact_uri),
                _files(parent, str(run.info.run_id)),
                CLEANED in run.data.tags,
            )
            for tag in (TRIAL, MEMBER, REFIT)
            for run in trials.children(parent, tag)
            if run.info.status != "RUNNING"
        ),
        key=lambda holding: (holding.member, holding.tag, holding.run_id),
    )


def remove(parent: Parent, holding: Holding) -> None:
    """Takes a run's files away, and tags it.

    The tag comes first: if this is ended in between, nobody looks for a model that may be gone.

    Raises:
        RunError: the store cannot delete; nothing was changed where it deletes nothing at all.
    """
    parent.client.set_tag(holding.run_id, CLEANED, "true")
    why = "its store does not delete"
    try:
        for name in holding.files:
            delete_artifacts(parent, holding.place, name)
    except Exception as error:  # of each kind of artifact store's own family
        why = first_line(error)
    # Not taken on trust: of some stores `delete_artifacts` does nothing.
    left = [name for name in _files(parent, holding.run_id) if name in holding.files]
    if len(left) == len(holding.files):
        spare(parent, holding)
    if left:
        raise RunError(
            f"{holding.described}: {left[0]} cannot be removed from {redacted(holding.place)}: {why}"
        )


def spare(parent: Parent, holding: Holding) -> None:
    """Takes the tag from a run that has all of its files."""
    parent.client.delete_tag(holding.run_id, CLEANED)


def _files(parent: Parent, run_id: str) -> dict[str, int]:
    found = {file.path: file.file_size or 0 for file in parent.client.list_artifacts(run_id)}
    return {name: found[name] for name in _FILES if name in found}
