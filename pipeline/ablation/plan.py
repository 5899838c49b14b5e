"""What an ablation trains: arms that differ in one technique each, and which is compared with which."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from pipeline.settings import Parameter
from pipeline.space import Space
from pipeline.values import Budget, Setting, Settings, Size

Parameters = Mapping[str, Parameter]
"""A task's, by their names."""

BASELINE, CHAMPION = "baseline", "champion"
ADDED, TAKEN = "added to the baseline", "taken from the champion"
"""Names of groups; those of comparisons have no spaces."""

_PLANS = ("cosine", "exponential", "step")
# A plan as long as the longest training would hardly begin before early stopping ends it.
_PLAN_IN_PATIENCES = 3


@dataclass(frozen=True)
class Technique:
    """A technique that a setting switches.

    on: its usual value. off: the value without it; None for the baseline's.
    """

    name: str
    setting: str
    on: Setting
    off: Setting | None

    def is_on(self, settings: Settings, parameters: Parameters) -> bool:
        """Whether a model with these settings has it."""
        if not parameters[self.setting].is_read(settings):
            return False
        value = settings[self.setting]
        return value == self.on if self.off is None or isinstance(self.on, str) else value != self.off

    def added(self, settings: Settings, value: Setting) -> Settings:
        """The settings with it, at that value."""
        switch = f"{self.setting}_on"
        return {**settings, self.setting: value, **({switch: True} if switch in settings else {})}

    def taken(self, settings: Settings, baseline: Settings) -> Settings:
        """The settings without it."""
        return {**settings, self.setting: baseline[self.setting] if self.off is None else self.off}


TECHNIQUES = (
    Technique("batch_normalization", "batch_normalization", on=True, off=False),
    Technique("normalization_before_activation", "bn_position", on="before", off="after"),
    Technique("normal_beta", "bn_beta_stddev", on=0.05, off=0.0),
    Technique("small_gamma", "bn_gamma", on=0.9, off=1.0),
    Technique("dropout", "dropout", on=0.3, off=0.0),
    Technique("l1", "l1", on=1e-5, off=0.0),
    Technique("l2", "l2", on=1e-4, off=0.0),
    Technique("activity_l1", "activity_l1", on=1e-5, off=0.0),
    Technique("max_norm", "max_norm", on=3.0, off="none"),
    Technique("plateau", "schedule", on="plateau", off="constant"),
    Technique("cosine_schedule", "schedule", on="cosine", off="plateau"),
    Technique("exponential_schedule", "schedule", on="exponential", off="plateau"),
    Technique("step_schedule", "schedule", on="step", off="plateau"),
    Technique("adam", "optimizer", on="adam", off=None),
    Technique("adamw", "optimizer", on="adamw", off=None),
    Technique("rmsprop", "optimizer", on="rmsprop", off=None),
    Technique("sgd_with_momentum", "optimizer", on="sgd", off=None),
    Technique("elu", "activation", on="elu", off=None),
    Technique("he_initializer", "initializer", on="he_normal", off=None),
    Technique("standardised_inputs", "scaling", on="standardise", off=None),
    Technique("inputs_from_0_to_1", "scaling", on="min_max", off=None),
    Technique("shuffle", "shuffle", on=True, off=False),
    Technique("skip_connections", "skip", on=True, off=False),
    Technique("embedded_categories", "categories", on="embedding", off="one_hot"),
    Technique("weight_averaging", "weight_averaging", on=0.9, off=0.0),
    Technique("label_smoothing", "label_smoothing", on=0.1, off=0.0),
    Technique("mixup", "mixup", on=0.3, off=0.0),
    Technique("class_weights", "class_weights", on=1.0, off=0.0),
)


@dataclass(frozen=True)
class Arm:
    """One way to train. against: the name of the arm in its group that it is compared with, or empty."""

    name: str
    settings: Settings
    against: str = ""


@dataclass(frozen=True)
class Group:
    """Arms that are compared with each other, trained on the same rows for as long.

    size, epochs: of the data and of a training, where the command's do not count.
    """

    name: str
    arms: tuple[Arm, ...]
    size: Size | None = None
    epochs: int | None = None


def groups(space: Space, champion: Settings | None) -> tuple[Group, ...]:
    """What to train: the file's own comparisons, one added to the baseline, one taken from the champion.

    Args:
        space: of the task, with the budget of the trainings.
        champion: a study's best settings, if there is one.
    """
    found = [
        Group(
            comparison.name,
            tuple(_chain(comparison.arms, {name: _published(space, name) for name in comparison.arms})),
            comparison.size,
            comparison.epochs,
        )
        for comparison in space.comparisons
    ]
    baseline = space.published(space.baseline or {})
    parameters = {parameter.name: parameter for parameter in space.parameters}
    known = [technique for technique in TECHNIQUES if technique.setting in parameters]
    if space.baseline is not None:
        found.append(Group(ADDED, tuple(_added(baseline, known, space, parameters))))
    if champion is not None:
        found.append(Group(TAKEN, tuple(_taken(champion, baseline, known, parameters))))
    return tuple(found)


def _published(space: Space, name: str) -> Settings:
    settings = space.baseline if name == BASELINE else space.variants[name]
    return space.published(settings or {})


def _chain(names: tuple[str, ...], settings: Mapping[str, Settings]) -> Iterator[Arm]:
    """Each against the one before it."""
    yield Arm(names[0], settings[names[0]])
    for before, name in pairwise(names):
        yield Arm(name, settings[name], before)


def _added(baseline: Settings, known: list[Technique], space: Space, parameters: Parameters) -> Iterator[Arm]:
    yield Arm(BASELINE, baseline)
    for technique in known:
        value = _value(technique, space.searched.get(technique.setting))
        settings = technique.added(baseline, value)
        if not technique.is_on(baseline, parameters) and parameters[technique.setting].is_read(settings):
            if value in _PLANS:
                settings = {**settings, "schedule_epochs": _plan_epochs(space.budget)}
            yield Arm(f"{BASELINE} + {technique.name}", settings, BASELINE)


def _taken(
    champion: Settings, baseline: Settings, known: list[Technique], parameters: Parameters
) -> Iterator[Arm]:
    yield Arm(CHAMPION, champion)
    named = {technique.setting for technique in known if technique.is_on(champion, parameters)}
    for technique in known:
        name, without = technique.name, technique.taken(champion, baseline)
        if not technique.is_on(champion, parameters):
            # A word that no technique is named after is taken back to the baseline's.
            name = technique.setting
            if not isinstance(technique.on, str) or name in named or not parameters[name].is_read(champion):
                continue
            named.add(name)
            without = {**champion, name: baseline[name]}
        if without != champion:
            yield Arm(f"{CHAMPION} - {name}", without, CHAMPION)


def _value(technique: Technique, searched: BaseDistribution | None) -> Setting:
    """The middle of the searched range, or the usual one."""
    if isinstance(technique.on, float) and isinstance(searched, FloatDistribution | IntDistribution):
        low, high = searched.low, searched.high
        return float((low * high) ** 0.5 if searched.log else (low + high) / 2)
    return technique.on


def _plan_epochs(budget: Budget) -> int:
    return max(1, min(budget.epochs, _PLAN_IN_PATIENCES * budget.patience))
