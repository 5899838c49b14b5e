"""The command `clean`: the best trials keep their weights, those of the others leave the artifact store.

Of every trial stay its run, params, metrics and curves, so the study and its report are as they were; what
goes is what another ensemble could be made of.
"""

import contextlib
import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline import presence, storage
from pipeline import study_opening as studies
from pipeline.engines import checkpoints
from pipeline.errors import RunError, UserError
from pipeline.report.page import as_text
from pipeline.study_opening import Standing
from pipeline.tracking import weights
from pipeline.tracking.connection import connect
from pipeline.tracking.parent import Parent, find_parent
from pipeline.tracking.recorder import TRIAL
from pipeline.tracking.weights import Holding
from pipeline.values import Member

_ENSEMBLE = "ensemble.json"


def clean(asked: Mapping[str, Any]) -> None:
    """Removes the weights of all but a study's best trials, its baseline and its ensemble; or tells of them.

    Raises:
        UserError: there is no such study, or a search may be training on it; nothing was removed.
        RunError: MLflow cannot be read, or its artifact store cannot delete; what was removed stays so.
    """
    name, url = asked["study"], asked["storage"] or ""
    storage.check_there(url, name)
    # A look disturbs nobody; what is removed may not be what a search is about to read.
    with storage.ours(url, name) if asked["apply"] else contextlib.nullcontext():
        _clean(asked, name, url)


def _clean(asked: Mapping[str, Any], name: str, url: str) -> None:
    client = connect()
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(storage.connected(url, name))
        if asked["apply"]:
            # Where several processes may train the study: none begins, takes a trial or ends meanwhile.
            alone = stack.enter_context(presence.looking(store, url, name).alone())
            if not alone:
                raise UserError(f"study {name}: a search trains on it; wait for it")
        standing = studies.standing_of(name, store)
        _clean_found(asked, name, standing, find_parent(client, name, standing.run))


def _clean_found(asked: Mapping[str, Any], name: str, standing: Standing, parent: Parent) -> None:
    if asked["apply"] and parent.before == "RUNNING":
        raise UserError(
            f"study {name}: its MLflow run {parent.run_id} is RUNNING: a search trains on it, or was killed;"
            " wait for it, or run the same search again, which ends it in order"
        )
    trials, members = _kept(standing, asked["keep"]), _members(parent)
    every = weights.held(parent)
    kept, going = list[Holding](), list[Holding]()
    for one in every:
        if one.member.trial in trials or one.member in members:
            kept.append(one)
        elif one.files:
            going.append(one)
    if asked["apply"]:
        _apply(parent, kept, going)
        # Of a search that was killed at a trial's end.
        checkpoints.sweep(storage.home(name) / checkpoints.HOME, standing.ended)
    _say(asked, standing, members, going)


def _kept(standing: Standing, keep: int) -> set[int]:
    """The best trials, and the baseline."""
    return {*list(standing.values)[:keep], *standing.baseline}


def _members(parent: Parent) -> set[Member]:
    """The members of the study's ensemble; none before it is made."""
    if not parent.has(_ENSEMBLE):
        return set()
    found = parent.read(_ENSEMBLE)
    try:
        return {Member.of(label) for label in json.loads(found)}
    except (ValueError, TypeError):
        raise RunError(
            f"{_ENSEMBLE} of run {parent.run_id}: must name members with weights, but holds {found[:80]!r}"
        ) from None


def _apply(parent: Parent, kept: Sequence[Holding], going: Sequence[Holding]) -> None:
    for one in kept:
        # Of a command that was ended before it removed the model, and that kept fewer.
        if one.cleaned and one.has_model:
            weights.spare(parent, one)
    for one in going:
        weights.remove(parent, one)


def _say(
    asked: Mapping[str, Any], standing: Standing, members: set[Member], going: Sequence[Holding]
) -> None:
    """What goes, or went, a line each, and what to do next."""
    best = min(asked["keep"], len(standing.values))
    stay = [f"the best {best} of {len(standing.values)} completed trials"]
    stay += ["the baseline"] if standing.baseline else []
    stay += [f"the ensemble's {len(members)} members"] if members else []
    print(f"study {asked['study']}: {', '.join(stay)} keep their weights")
    done = asked["apply"]
    if not going:
        print("there is nothing to remove" if not done else "there was nothing to remove", flush=True)
        return
    rows = [[one.described, _value(one, standing), str(len(one.files)), _size(one)] for one in going]
    print(f"\n{as_text([['removed' if done else 'would go', 'value', 'files', 'bytes'], *rows])}\n")
    files = sum(len(one.files) for one in going)
    total = sum(sum(one.files.values()) for one in going)
    verb = "were removed" if done else "would go"
    print(f"{files} files, {total:,} bytes {verb}; runs, params, metrics and curves stay")
    if not done:
        print(f"nothing was removed yet; this removes it:\n  {_command(asked)}")
    print("runs that were deleted in MLflow are removed with all their files by `mlflow gc`", flush=True)


def _value(one: Holding, standing: Standing) -> str:
    found = standing.values.get(one.member.trial) if one.tag == TRIAL else None
    return "" if found is None else f"{found:.4f}"


def _size(one: Holding) -> str:
    return f"{sum(one.files.values()):,}"


def _command(asked: Mapping[str, Any]) -> str:
    storage_too = f" --storage={shlex.quote(asked['storage'])}" if asked["storage"] else ""
    return (
        f"python -m pipeline clean --study={asked['study']}{storage_too} --keep={asked['keep']} --apply=true"
    )
