"""Samplers and pruners by the names users type, with the checks that Optuna leaves to mid-search.

A sampler is made anew for each question, seeded by (study's seed, trial number): the same study asked the
same way gives the same trials, also when it was stopped in between.
"""

import importlib.util
import itertools
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, WilcoxonPruner
from optuna.samplers import (
    BaseSampler,
    CmaEsSampler,
    GPSampler,
    RandomSampler,
    TPESampler,
)
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from pipeline.errors import UserError
from pipeline.seeds import derived

BASELINE = "baseline"
"""The user attribute that marks a study's baseline trial, which no sampler has drawn."""

_STARTUP_TRIALS = 10
_LIBRARIES = {"cmaes": ("cmaes", "pip install cmaes"), "gp": ("torch", "pip install 'regatta-search[gp]'")}


def check(sampler: str, pruner: str, folds: int, searched: Mapping[str, BaseDistribution]) -> None:
    """Raises UserError, before any trial, for what could not work later."""
    library, install = _LIBRARIES.get(sampler, ("", ""))
    if library and importlib.util.find_spec(library) is None:
        raise UserError(f"sampler={sampler}: needs the package {library}; install it with: {install}")
    if sampler == "grid":
        _grid(searched)
    if sampler == "cmaes" and sum(_is_range(distribution) for distribution in searched.values()) < 2:
        raise UserError(
            "sampler=cmaes: needs two searched ranges of numbers at least, and draws choices at random"
        )
    if folds > 1 and pruner not in ("none", "wilcoxon"):
        raise UserError(
            f"pruner={pruner}: compares trials epoch by epoch, but folds={folds} are trained one after the"
            " other; use pruner=wilcoxon, which compares them fold by fold"
        )
    if folds < 3 and pruner == "wilcoxon":
        raise UserError(
            "pruner=wilcoxon: compares trials fold by fold, two folds at least, and must do so before the"
            " last; give folds=3 or more"
        )


def described(sampler: str, searched: Mapping[str, BaseDistribution]) -> str:
    """The sampler with the settings that matter, for the log and the record."""
    at_random = [name for name, distribution in searched.items() if not _is_range(distribution)]
    return {
        "tpe": f"tpe (multivariate, constant liar, {_STARTUP_TRIALS} random trials first)",
        "cmaes": "cmaes"
        + (f" ({', '.join(at_random)} at random: choices are no numbers)" if at_random else ""),
        "grid": f"grid (points: {points(sampler, searched)})",
        "gp": f"gp ({_STARTUP_TRIALS} random trials first)",
    }.get(sampler, sampler)


def points(sampler: str, searched: Mapping[str, BaseDistribution]) -> float:
    """How many different trials the sampler can draw."""
    return math.prod(map(len, _grid(searched).values())) if sampler == "grid" else math.inf


def make_sampler(
    name: str,
    searched: Mapping[str, BaseDistribution],
    seed: int,
    number: int,
    taken: Sequence[Mapping[str, Any]] = (),
) -> BaseSampler:
    """The sampler that draws trial `number`; taken: what a grid needs not draw again."""
    if name == "grid":
        return _Grid(searched, seed, taken)
    return BlindToBaseline(_sampler(name, derived(seed, number)))


def make_pruner(name: str, epochs: int, folds: int) -> BasePruner:
    """The pruner; epochs is the longest training of a trial (or fold)."""
    if name == "median":
        return MedianPruner(n_startup_trials=5, n_warmup_steps=epochs // 10)
    if name == "hyperband":
        return HyperbandPruner(min_resource=1, max_resource=epochs, reduction_factor=3)
    if name == "wilcoxon":
        with warnings.catch_warnings():
            # The user has asked for it by name; that Optuna may change it some day, the pin takes care of.
            warnings.simplefilter("ignore", ExperimentalWarning)
            # A trial that was worse in all folds but the last must fall below the threshold: of n folds,
            # the test's smallest p is 0.5^n. From 5 folds on, Optuna's own 0.1 serves.
            return WilcoxonPruner(p_threshold=max(0.1, 1.001 * 0.5 ** (folds - 1)))
    return NopPruner()


class BlindToBaseline(BaseSampler):
    """Any sampler, which does not see the baseline trial.

    The baseline has settings but no drawn parameters. Optuna's samplers search the parameters that *all*
    finished trials share: one such trial leaves them none, and multivariate TPE falls back to one parameter
    at a time, CMA-ES to random draws, without a word.
    """

    def __init__(self, sampler: BaseSampler) -> None:
        self._sampler = sampler

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._sampler.infer_relative_search_space(_without_baseline(study), trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._sampler.sample_relative(_without_baseline(study), trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._sampler.sample_independent(
            _without_baseline(study), trial, param_name, param_distribution
        )

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._sampler.before_trial(_without_baseline(study), trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
        if BASELINE not in trial.user_attrs:
            self._sampler.after_trial(_without_baseline(study), trial, state, values)


class _WithoutBaseline:
    """A study as its sampler sees it; it may be one of Hyperband's brackets, a study in part only."""

    def __init__(self, study: Study) -> None:
        self._whole = study

    def _get_trials(self, *args: Any, **kwargs: Any) -> list[FrozenTrial]:
        return _drawn(self._whole._get_trials(*args, **kwargs))

    def get_trials(self, *args: Any, **kwargs: Any) -> list[FrozenTrial]:
        return _drawn(self._whole.get_trials(*args, **kwargs))

    @property
    def trials(self) -> list[FrozenTrial]:
        return self.get_trials()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whole, name)


def _drawn(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    return [trial for trial in trials if BASELINE not in trial.user_attrs]


def _without_baseline(study: Study) -> Study:
    return cast(Study, _WithoutBaseline(study))


class _Grid(BaseSampler):
    """Walks the points of a grid in an order that the seed gives.

    Optuna's own takes an interrupted trial's point for done, and shuffles anew for each seed.
    """

    def __init__(
        self, searched: Mapping[str, BaseDistribution], seed: int, taken: Sequence[Mapping[str, Any]]
    ) -> None:
        self._searched = dict(searched)
        self._seed = seed
        self._taken = taken

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._searched

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        grid = _grid(self._searched)
        points = list(itertools.product(*grid.values()))
        order = np.random.default_rng(self._seed).permutation(len(points))
        # Of one with other settings, or not all of them, no point is taken.
        taken = {tuple(one[name] for name in grid) for one in self._taken if one.keys() == grid.keys()}
        free = next(points[place] for place in order if points[place] not in taken)
        return dict(zip(grid, free, strict=True))

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        raise RuntimeError(f"{param_name} is no setting of the grid")


def _sampler(name: str, seed: int) -> BaseSampler:
    if name == "tpe":
        return TPESampler(multivariate=True, constant_liar=True, n_startup_trials=_STARTUP_TRIALS, seed=seed)
    if name == "cmaes":
        return CmaEsSampler(seed=seed, n_startup_trials=1, warn_independent_sampling=False)
    if name == "gp":
        return GPSampler(seed=seed, n_startup_trials=_STARTUP_TRIALS)
    return RandomSampler(seed=seed)


def _grid(searched: Mapping[str, BaseDistribution]) -> dict[str, list[Any]]:
    grid: dict[str, list[Any]] = {}
    unfit = []
    for name, distribution in searched.items():
        if isinstance(distribution, CategoricalDistribution):
            grid[name] = list(distribution.choices)
        elif isinstance(distribution, IntDistribution) and not distribution.log:
            grid[name] = list(range(distribution.low, distribution.high + 1, distribution.step))
        elif isinstance(distribution, FloatDistribution) and distribution.step is not None:
            count = round((distribution.high - distribution.low) / distribution.step) + 1
            grid[name] = np.linspace(distribution.low, distribution.high, count).tolist()
        else:
            unfit.append(name)
    if unfit:
        raise UserError(
            "sampler=grid: needs choices or a step for every searched setting, but these have neither:"
            f" {', '.join(unfit)}"
        )
    return grid


def _is_range(distribution: BaseDistribution) -> bool:
    return isinstance(distribution, FloatDistribution | IntDistribution)
