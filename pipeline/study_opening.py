"""Opens a study, new or as it was left, and holds it to what it was started with."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import optuna
from optuna.samplers import RandomSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from pipeline import samplers
from pipeline.errors import UserError
from pipeline.space import Space
from pipeline.study import Study, run_of, settings_of, starts_known
from pipeline.values import Data, Settings, Size

_ORIGIN, _IDENTITY = "origin", "identity"
_PRECISION, _FULL = "precision", "float32"
# What an identity does not name.
_UNNAMED = {_PRECISION: _FULL}


@dataclass(frozen=True)
class Origin:
    """What a study was started with, beside the contents of its space and data: enough to open it again.

    space_file and space_text: the file's path then, and its contents. epochs: what the command gave, or None.
    source: what of `Source` a person gave. precision: what layers compute with.
    """

    task: str
    size: Size
    folds: int
    epochs: int | None
    space_file: str
    space_text: str
    source: Mapping[str, str] = field(default_factory=dict)
    # Of studies that say nothing of it, too.
    precision: str = _FULL


@dataclass(frozen=True)
class Standing:
    """How a study stands, as its record says without its task and its rows.

    run: the MLflow run that shows it, empty before there is one. values: the objective's value of each
    completed trial by its number, best first; of equals, the earlier. baseline: numbers of those that are the
    published model. ended: of those that will not be trained again, however they ended.
    """

    run: str
    values: Mapping[int, float]
    baseline: frozenset[int]
    ended: frozenset[int]


def open_study(
    name: str,
    storage: BaseStorage,
    space: Space,
    origin: Origin,
    data: str,
    *,
    pruner: str,
    sampler: str,
    seed: int,
) -> Study:
    """The study of that name, new or as it was left.

    data: the digest of the data set.

    Raises:
        UserError: it was started with something else; the message says what differs.
    """
    study = optuna.create_study(
        study_name=name,
        storage=storage,
        load_if_exists=True,
        direction=space.objective.direction,
        pruner=samplers.make_pruner(pruner, space.budget.epochs, origin.folds),
        # Replaced at each question, see `samplers.make_sampler`.
        sampler=RandomSampler(),
    )
    identity = {
        "task": origin.task,
        "size": origin.size,
        "folds": str(origin.folds),
        "data": data,
        # Not its path: the rows' digests tell whether it is the same file.
        **{name: value for name, value in origin.source.items() if name != "data"},
        **({_PRECISION: origin.precision} if origin.precision != _FULL else {}),
        **space.identity(),
    }
    known: Any = study.user_attrs.get(_IDENTITY)
    trials = study.get_trials(deepcopy=False)
    if known is None and trials:
        raise UserError(f"study {name}: was not made by this program; give another name by study=")
    if not trials:
        # Nothing was trained with what it was started with, so that may still change.
        study.set_user_attr(_IDENTITY, identity)
        study.set_user_attr(_ORIGIN, asdict(origin))
    elif known != identity:
        raise UserError.of(
            [
                f"study {name}: was started with other settings; give another name by study=, or these:",
                *_differences(known, identity),
            ]
        )
    return Study(study, storage, space, sampler, seed)


def origin_of(name: str, storage: BaseStorage) -> Origin:
    """What the study of that name was started with.

    Raises:
        UserError: there is no such study.
    """
    try:
        study = optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        raise UserError(
            f"study: there is no study named {name!r} in this storage; search makes one"
        ) from None
    known = study.user_attrs.get(_ORIGIN)
    if known is None:
        raise UserError(f"study {name}: was not made by this program")
    return Origin(**known)


def read_study(name: str, storage: BaseStorage, space: Space) -> Study:
    """The study of that name, to be read only: nothing is held to its rows. space: as of its start."""
    return Study(optuna.load_study(study_name=name, storage=storage), storage, space, "random", 0)


def digest_of(name: str, storage: BaseStorage) -> str:
    """What `described` says of the rows that the study was started with."""
    study = optuna.load_study(study_name=name, storage=storage)
    return str(study.user_attrs.get(_IDENTITY, {}).get("data", ""))


def described(data: Data) -> str:
    """The digests of a data set, as a study keeps them."""
    return ", ".join(f"{split} {digest[:12]}" for split, digest in data.digests.items())


def standing_of(name: str, storage: BaseStorage) -> Standing:
    """How the study of that name stands.

    Raises:
        UserError: there is no such study.
    """
    origin_of(name, storage)
    study = optuna.load_study(study_name=name, storage=storage)
    completed = _completed(study)
    baseline = frozenset(trial.number for trial in completed if samplers.BASELINE in trial.user_attrs)
    trials = study.get_trials(deepcopy=False)
    ended = frozenset(trial.number for trial in trials if trial.state.is_finished())
    values = {trial.number: float(trial.values[0]) for trial in completed}
    return Standing(run_of(study), values, baseline, ended)


def is_there(name: str, storage: BaseStorage) -> bool:
    """Whether the storage has a study of that name."""
    return name in optuna.get_all_study_names(storage)


def has_started_from(name: str, storage: BaseStorage, earlier: str) -> bool:
    """Whether the study of that name, if there is one, was given the settings of an earlier one."""
    if not is_there(name, storage):
        return False
    return starts_known(optuna.load_study(study_name=name, storage=storage), earlier)


def best_drawn(name: str, storage: BaseStorage, task: str) -> tuple[int, Settings] | None:
    """The number and settings of the best trial that the sampler drew; None if none completed.

    Raises:
        UserError: there is no such study, or it is of another task.
    """
    return next(iter(drawn_best_first(name, storage, task)), None)


def drawn_best_first(name: str, storage: BaseStorage, task: str) -> list[tuple[int, Settings]]:
    """Numbers and settings of the completed trials that the sampler drew, best first; of equals, the earlier.

    Raises:
        UserError: there is no such study, or it is of another task.
    """
    origin = origin_of(name, storage)
    if origin.task != task:
        raise UserError(f"study {name}: is of the task {origin.task}, and not of {task}")
    study = optuna.load_study(study_name=name, storage=storage)
    drawn = [trial for trial in _completed(study) if samplers.BASELINE not in trial.user_attrs]
    return [(trial.number, settings_of(trial)) for trial in drawn]


def _completed(study: optuna.Study) -> list[FrozenTrial]:
    """The completed trials, best first; of equals, the earlier."""
    sign = -1 if study.direction == optuna.study.StudyDirection.MAXIMIZE else 1
    completed = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return sorted(completed, key=lambda trial: (sign * trial.values[0], trial.number))


def _differences(known: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    return [
        f"  {key}: was {_named(known, key)}, now {_named(now, key)}"
        for key in sorted({*known, *now})
        if known.get(key) != now.get(key)
    ]


def _named(identity: Mapping[str, str], key: str) -> str:
    return identity.get(key, _UNNAMED.get(key, "not there"))
