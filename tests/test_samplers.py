"""Samplers and pruners: checks before trial 0, and that the baseline costs no sampler its power."""

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from pipeline import samplers
from pipeline.errors import UserError

SEARCHED = {
    "learning_rate": FloatDistribution(1e-4, 1e-1, log=True),
    "dropout": FloatDistribution(0.0, 0.5),
    "batch_size": CategoricalDistribution([16, 32]),
}
GRID = {
    "dropout": FloatDistribution(0.0, 0.5, step=0.25),
    "units": IntDistribution(8, 16, step=8),
    "batch_size": CategoricalDistribution([16, 32]),
}


def _study_with_baseline(direction: str = "minimize") -> optuna.Study:
    study = optuna.create_study(study_name="s", direction=direction)
    study.add_trial(create_trial(value=0.1, user_attrs={samplers.BASELINE: True}))
    return study


def _ask(study: optuna.Study, name: str, searched: dict, seed: int = 0) -> optuna.Trial:
    study.sampler = samplers.make_sampler(name, searched, seed, len(study.trials))
    return study.ask(searched)


@pytest.mark.parametrize("name", ["tpe", "random", "cmaes"])
def test_a_study_with_a_baseline_is_asked_and_told(name: str) -> None:
    study = _study_with_baseline()
    for _ in range(14):
        trial = _ask(study, name, SEARCHED)
        study.tell(trial, trial.params["dropout"])
    assert len(study.trials) == 15
    assert study.best_trial.value is not None


def test_tpe_stays_multivariate_beside_a_baseline() -> None:
    # Drawn together, the parameters of a trial are stored as relative ones before they are suggested.
    study = _study_with_baseline()
    for _ in range(12):
        trial = _ask(study, "tpe", SEARCHED)
        study.tell(trial, trial.params["dropout"])
    drawn = study.trials[-1].system_attrs
    assert any(key.startswith("tpe:relative_params") for key in drawn)


def test_plain_tpe_loses_that_to_a_trial_without_parameters() -> None:
    # Why the samplers are blind to the baseline; when this fails, Optuna has mended it.
    study = _study_with_baseline()
    for _ in range(12):
        study.sampler = optuna.samplers.TPESampler(multivariate=True, constant_liar=True, seed=0)
        trial = study.ask(SEARCHED)
        study.tell(trial, trial.params["dropout"])
    assert not any(key.startswith("tpe:relative_params") for key in study.trials[-1].system_attrs)


def test_cmaes_draws_numbers_by_cmaes_beside_a_baseline() -> None:
    study = _study_with_baseline()
    for _ in range(5):
        trial = _ask(study, "cmaes", SEARCHED)
        study.tell(trial, trial.params["dropout"])
    assert any(key.startswith("cma:") for key in study.trials[-1].system_attrs)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's and Optuna's own, of parts that may change
def test_gp_models_what_it_draws_beside_a_baseline() -> None:
    pytest.importorskip("torch", reason="the extra gp is not installed")
    study = _study_with_baseline("maximize")
    for _ in range(16):
        trial = _ask(study, "gp", SEARCHED)
        study.tell(trial, trial.params["dropout"])
    # Random draws rarely come near the upper end; a model of 10 of them goes there at once.
    assert max(trial.value for trial in study.trials[11:]) > 0.49


def test_grid_draws_every_point_once_and_an_untaken_one_again() -> None:
    study = optuna.create_study(study_name="s")
    points = int(samplers.points("grid", GRID))
    assert points == 3 * 2 * 2
    taken: list[dict] = []
    for number in range(points + 1):
        study.sampler = samplers.make_sampler("grid", GRID, 0, number, taken)
        trial = study.ask(GRID)
        study.tell(trial, 1.0)
        # The fourth is interrupted: it counts for nothing.
        if number != 3:
            taken.append(trial.params)
    assert len({tuple(sorted(params.items())) for params in taken}) == points
    assert study.trials[4].params == study.trials[3].params


@pytest.mark.parametrize("pruner", ["none", "median", "hyperband"])
@pytest.mark.parametrize("name", ["tpe", "random", "cmaes", "grid"])
def test_every_sampler_goes_with_every_pruner_beside_a_baseline(name: str, pruner: str) -> None:
    study = _study_with_baseline("maximize")
    study.pruner = samplers.make_pruner(pruner, epochs=9, folds=1)
    searched = {**GRID, "l2": CategoricalDistribution([0.0, 0.1])}
    taken: list[dict] = []
    for number in range(1, 16):
        study.sampler = samplers.make_sampler(name, searched, 0, number, taken)
        trial = study.ask(searched)
        taken.append(trial.params)
        for epoch in range(9):
            trial.report(trial.params["dropout"], epoch)
            if trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                break
        else:
            study.tell(trial, trial.params["dropout"])
    states = {trial.state for trial in study.trials}
    assert states == ({TrialState.COMPLETE} if pruner == "none" else {TrialState.COMPLETE, TrialState.PRUNED})


@pytest.mark.parametrize(("folds", "after"), [(3, 2), (4, 3), (5, 4), (10, 4)])
def test_wilcoxon_gives_a_trial_up_that_is_worse_in_every_fold_before_the_last(
    folds: int, after: int
) -> None:
    study = optuna.create_study(
        study_name="s", direction="maximize", pruner=samplers.make_pruner("wilcoxon", 9, folds)
    )
    values = {fold: 0.9 + fold / 100 for fold in range(folds)}
    study.add_trial(create_trial(value=0.9, intermediate_values=values))
    trial = study.ask()
    pruned = []
    for fold in range(folds):
        trial.report(0.5 + fold / 100, fold)
        pruned.append(trial.should_prune())
    assert pruned.index(True) == after - 1 < folds - 1


def test_a_trial_depends_on_seed_and_number_alone() -> None:
    def draw(seed: int, stop_after: int) -> list[dict]:
        study = _study_with_baseline()
        for _ in range(stop_after):
            study.tell(_ask(study, "random", SEARCHED, seed), 1.0)
        # Another process goes on with the same record.
        again = optuna.create_study(study_name="s")
        again.add_trials(study.trials)
        for _ in range(6 - stop_after):
            again.tell(_ask(again, "random", SEARCHED, seed), 1.0)
        return [trial.params for trial in again.trials[1:]]

    assert draw(0, 6) == draw(0, 2)
    assert draw(0, 6) != draw(1, 6)
    drawn = [tuple(params.items()) for params in draw(0, 6)]
    assert len(set(drawn)) == 6


def test_a_running_baseline_is_no_hindrance() -> None:
    study = optuna.create_study(study_name="s")
    study.add_trial(create_trial(state=TrialState.RUNNING, user_attrs={samplers.BASELINE: True}))
    for _ in range(12):
        study.tell(_ask(study, "tpe", SEARCHED), 1.0)
    study.sampler = samplers.make_sampler("tpe", SEARCHED, 0, 13)
    assert study.tell(0, 0.5).state == TrialState.COMPLETE


@pytest.mark.parametrize(
    ("sampler", "pruner", "folds", "searched", "said"),
    [
        ("grid", "none", 1, SEARCHED, "sampler=grid: needs choices or a step .* learning_rate, dropout"),
        ("cmaes", "none", 1, {"batch_size": SEARCHED["batch_size"]}, "sampler=cmaes: needs two"),
        ("tpe", "wilcoxon", 1, SEARCHED, "pruner=wilcoxon: .* give folds=3 or more"),
        ("tpe", "wilcoxon", 2, SEARCHED, "pruner=wilcoxon: .* give folds=3 or more"),
        ("tpe", "median", 3, SEARCHED, "pruner=median: .* folds=3 .* use pruner=wilcoxon"),
        ("tpe", "hyperband", 2, SEARCHED, "pruner=hyperband: .* folds=2"),
    ],
)
def test_what_could_not_work_is_said_before_any_trial(
    sampler: str, pruner: str, folds: int, searched: dict, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        samplers.check(sampler, pruner, folds, searched)


@pytest.mark.parametrize(("sampler", "package"), [("cmaes", "cmaes"), ("gp", "torch")])
def test_a_missing_library_is_said_before_any_trial(
    sampler: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samplers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=f"sampler={sampler}: needs the package {package}; install"):
        samplers.check(sampler, "none", 1, SEARCHED)


@pytest.mark.parametrize(
    ("sampler", "pruner", "folds", "searched"),
    [
        ("tpe", "none", 1, SEARCHED),
        ("tpe", "median", 1, SEARCHED),
        ("random", "hyperband", 1, SEARCHED),
        ("cmaes", "wilcoxon", 5, SEARCHED),
        ("grid", "none", 1, GRID),
    ],
)
def test_what_can_work_passes(sampler: str, pruner: str, folds: int, searched: dict) -> None:
    samplers.check(sampler, pruner, folds, searched)
    assert sampler in samplers.described(sampler, searched)


def test_tpe_says_how_it_is_set() -> None:
    assert "multivariate, constant liar" in samplers.described("tpe", SEARCHED)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("none", optuna.pruners.NopPruner),
        ("median", optuna.pruners.MedianPruner),
        ("hyperband", optuna.pruners.HyperbandPruner),
        ("wilcoxon", optuna.pruners.WilcoxonPruner),
    ],
)
def test_pruners_by_name(name: str, kind: type) -> None:
    assert isinstance(samplers.make_pruner(name, epochs=50, folds=5), kind)
