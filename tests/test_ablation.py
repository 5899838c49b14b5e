"""What an ablation compares, its intervals, and the command on real stores."""

import csv
import io
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from scipy import stats

from pipeline import search
from pipeline import space as spaces
from pipeline.__main__ import main
from pipeline.ablation import page, plan
from pipeline.ablation.differences import Difference, of_group
from pipeline.ablation.plan import TECHNIQUES, Arm, Group, groups
from pipeline.engines import rows
from pipeline.metrics import CLASSIFICATION
from pipeline.tasks import NAMES, find, iris
from pipeline.values import Metric, SealedSplit, Split


def space_of(name: str) -> spaces.Space:
    task = find(name)
    return spaces.read(spaces.file_of(name), task.parameters, task.metrics)


class TestPlan:
    def test_the_classic_comparisons_are_made(self) -> None:
        found = {
            (name, group.name): ([arm.name for arm in group.arms], group.size, group.epochs)
            for name in ("iris", "mnist", "fashion_mnist")
            for group in groups(space_of(name), None)[:-1]
        }
        assert found == {
            ("iris", "batch_normalization"): (["baseline", "batch_normalization"], None, None),
            ("mnist", "batch_normalization"): (["no_batch_normalization", "baseline"], None, None),
            ("mnist", "shuffle"): (["no_shuffle", "shuffle"], "small", 5),
            ("fashion_mnist", "regularisation"): (
                ["plain", "l2_activity_l1", "max_norm", "dropout"],
                None,
                None,
            ),
        }

    def test_each_step_is_compared_with_the_one_before_it(self) -> None:
        (steps, _) = groups(space_of("fashion_mnist"), None)
        assert [arm.against for arm in steps.arms] == ["", "plain", "l2_activity_l1", "max_norm"]

    @pytest.mark.parametrize("name", NAMES)
    def test_arms_added_to_the_baseline_differ_from_it_in_one_technique(self, name: str) -> None:
        space = space_of(name)
        added = groups(space, None)[-1]
        baseline = added.arms[0]
        assert baseline == Arm("baseline", space.published(space.baseline or {}))
        assert len(added.arms) > 5
        for arm in added.arms[1:]:
            changed = {key for key, value in arm.settings.items() if value != baseline.settings[key]}
            (technique,) = [one for one in TECHNIQUES if arm.name == f"baseline + {one.name}"]
            planned = technique.on in ("cosine", "exponential", "step")
            assert changed == {technique.setting, *(["schedule_epochs"] if planned else [])}
            assert arm.against == "baseline"

    def test_a_number_is_the_middle_of_its_range_whatever_the_champion_has(self) -> None:
        space = space_of("iris")
        champion = {**space.published({}), "dropout": 0.125}
        for found in (groups(space, None)[-1], groups(space, champion)[-2]):
            of = {arm.name: arm.settings for arm in found.arms}
            assert of["baseline + dropout"]["dropout"] == 0.25
            assert of["baseline + l2"]["l2"] == pytest.approx((1e-7 * 1e-2) ** 0.5)

    @pytest.mark.parametrize(("epochs", "planned"), [(None, 120), (50, 50)])
    def test_a_plan_is_no_longer_than_a_training_may_be_expected_to_last(
        self, epochs: int | None, planned: int
    ) -> None:
        space = space_of("iris").with_epochs(epochs)
        assert space.budget.patience == 40
        of = {arm.name: arm.settings for arm in groups(space, None)[-1].arms}
        for name in ("cosine", "exponential", "step"):
            assert of[f"baseline + {name}_schedule"]["schedule_epochs"] == planned
        assert of["baseline + dropout"]["schedule_epochs"] == "epochs"

    def test_words_of_the_champion_that_no_technique_is_named_after_are_taken_back(self) -> None:
        space = space_of("mnist")
        baseline = space.published(space.baseline or {})
        words = {"activation": "gelu", "initializer": "he_uniform", "scaling": "none", "bn_gamma": 0.5}
        champion = {**baseline, **words, "optimizer": "sgd", "schedule": "step"}
        (group,) = [one for one in groups(space, champion) if one.name == plan.TAKEN]
        of = {arm.name.removeprefix("champion - "): arm.settings for arm in group.arms[1:]}
        for word in ("activation", "initializer", "scaling"):
            assert of[word] == {**champion, word: baseline[word]}
        assert of["sgd_with_momentum"] == {**champion, "optimizer": baseline["optimizer"]}
        assert of["small_gamma"] == {**champion, "bn_gamma": 1.0}
        assert of["step_schedule"] == {**champion, "schedule": "plateau"}
        assert len(of) == len(group.arms) - 1
        assert of.keys() <= {one.name for one in TECHNIQUES} | {*words}

    def test_techniques_are_taken_from_the_champion_one_by_one(self) -> None:
        space = space_of("iris")
        champion = {**space.published({}), "dropout": 0.2, "max_norm": 2.0, "l1": 1e-5, "l1_on": False}
        taken = groups(space, champion)[-1]
        assert {arm.name for arm in taken.arms} == {
            "champion",
            "champion - batch_normalization",
            "champion - dropout",
            "champion - max_norm",
            "champion - plateau",
            "champion - shuffle",
        }
        for arm in taken.arms[1:]:
            assert len({key for key, value in arm.settings.items() if value != champion[key]}) == 1

    def test_without_a_baseline_and_a_champion_there_is_nothing(self) -> None:
        space = space_of("imdb")
        bare = spaces.parse(
            space.text.split("# As published")[0], space.file, space.parameters, CLASSIFICATION
        )
        assert groups(bare, None) == ()


class TestDifferences:
    GROUP = Group("made up", (Arm("a", {}), Arm("b", {}, "a"), Arm("c", {}, "b")))

    def test_the_interval_is_that_of_the_paired_t_test(self) -> None:
        rng = np.random.default_rng(0)
        first, second = rng.normal(size=(2, 10))
        scores = {
            "a": {seed: {"accuracy": float(value)} for seed, value in enumerate(first)},
            "b": {seed: {"accuracy": float(value)} for seed, value in enumerate(second)},
            "c": {},
        }
        (found,) = of_group(self.GROUP, scores, ["accuracy"])
        oracle = stats.ttest_rel(second, first).confidence_interval(0.95)
        assert (found.low, found.high) == pytest.approx((oracle.low, oracle.high))
        assert found.mean == pytest.approx(float((second - first).mean()))
        assert found.score == pytest.approx(float(second.mean()))
        assert found.seeds == 10

    def test_only_seeds_that_both_finished_with_count(self) -> None:
        scores = {
            "a": {0: {"loss": 1.0}, 1: {"loss": 5.0}},
            "b": {1: {"loss": 2.0}, 2: {"loss": 9.0}},
            "c": {7: {"loss": 0.0}},
        }
        (found,) = of_group(self.GROUP, scores, ["loss"])
        assert (found.mean, found.seeds) == (-3.0, 1)
        assert np.isnan(found.low)

    def test_it_says_in_which_settings_an_arm_differs(self) -> None:
        arms = (Arm("a", {"x": 1, "y": 0.5, "z": True}), Arm("b", {"x": 1, "y": 0.125, "z": False}, "a"))
        (found,) = of_group(Group("made up", arms), {"a": {0: {"m": 1.0}}, "b": {0: {"m": 2.0}}}, ["m"])
        assert found.change == "y=0.125, z=False"


def test_table_and_picture_have_every_arm(tmp_path: Path) -> None:
    rows = [
        Difference(arm, "baseline", metric, 0.5, 0.25, 0.75, 0.9, 3, f"{arm}=1")
        for arm in ("b", "c")
        for metric in ("accuracy", "log_loss")
    ]
    shown = [Metric("accuracy", "maximize"), Metric("log_loss", "minimize")]
    assert page.table(rows, shown) == [
        ["arm", "change", "against", "test accuracy", "difference", "test log_loss", "difference", "seeds"],
        [
            "b",
            "b=1",
            "baseline",
            "0.9000",
            "+0.5000 [+0.2500, +0.7500]",
            "0.9000",
            "+0.5000 [+0.2500, +0.7500]",
            "3",
        ],
        [
            "c",
            "c=1",
            "baseline",
            "0.9000",
            "+0.5000 [+0.2500, +0.7500]",
            "0.9000",
            "+0.5000 [+0.2500, +0.7500]",
            "3",
        ],
    ]
    files = page.draw(tmp_path, "title", {"a group": rows}, shown, ["a group: d"])
    assert f"{page.MISSING}: a group: d." in files[0].read_text()
    assert [file.name for file in files] == ["ablation.html", "ablation_0_a_group.png"]
    assert all(file.stat().st_size > 5_000 for file in files)


@pytest.fixture
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorFlow takes seconds to compile each layer of each training."""
    monkeypatch.setattr(iris, "_WIDTHS", (8,))
    monkeypatch.setattr(
        plan, "TECHNIQUES", [one for one in TECHNIQUES if one.name in ("dropout", "max_norm")]
    )


SPACE = """
[objective]
metric = "val_log_loss"
[budget]
epochs = 2
monitor = "val_log_loss"
[space]
dropout = { low = 0.0, high = 0.5 }
[baseline]
batch_normalization = false
[variants.wide]
units = 16
[comparisons.width]
arms = ["baseline", "wide"]
epochs = 1
"""


@pytest.mark.usefixtures("_few")
class TestCommand:
    def ablate(self, *more: str) -> int:
        return main(["ablate", "--task=iris", "--seeds=2", "--engine=fit", *more])

    def test_every_arm_is_trained_from_the_same_seeds_and_compared(
        self, workplace: Path, capsys: pytest.CaptureFixture
    ) -> None:
        (workplace / "own.toml").write_text(SPACE)
        search(task="iris", trials=2, epochs=2, engine="fit", export="none", space="own.toml")
        assert self.ablate("--space=own.toml") == 0
        out = capsys.readouterr().out
        client = MlflowClient()
        (experiment,) = [one for one in client.search_experiments() if one.name == "iris"]
        (parent,) = client.search_runs([experiment.experiment_id], "tags.`pipeline.ablation` = 'iris'")
        assert parent.info.status == "FINISHED"
        children = client.search_runs(
            [experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'", max_results=500
        )
        seeds: dict[str, set[str]] = {}
        for child in children:
            assert child.info.status == "FINISHED"
            assert "pipeline.trial" not in child.data.tags
            seeds.setdefault(child.data.tags["pipeline.arm"], set()).add(child.data.tags["pipeline.seed"])
        assert len({frozenset(found) for found in seeds.values()}) == 1
        assert len(seeds["width: wide"]) == 2
        # The same settings are trained once in a stage, whatever groups they are in.
        assert len(children) == 2 * len(seeds)
        epochs = {child.data.tags["pipeline.arm"]: child.data.metrics["epochs"] for child in children}
        assert epochs["width: wide"] == 1
        assert epochs["added to the baseline: baseline + dropout"] == 2
        table = mlflow.artifacts.load_text(f"{parent.info.artifact_uri}/ablation.csv")
        rows = list(csv.DictReader(io.StringIO(table)))
        assert {row["comparison"] for row in rows} == {
            "width",
            "added to the baseline",
            "taken from the champion",
        }
        assert {row["metric"] for row in rows} == {"accuracy", "log_loss"}
        for row in rows:
            arm = row["arm"].replace(" + ", " with ").replace(" - ", " without ")
            name = f"{row['comparison']}/{arm} against {row['against']}/test_{row['metric']}"
            assert parent.data.metrics[name] == pytest.approx(float(row["difference"]))
            assert float(row["low"]) <= float(row["difference"]) <= float(row["high"])
        names = {file.path for file in client.list_artifacts(parent.info.run_id)}
        assert {"ablation.csv", "ablation.html", "plots", "search_space", "versions.json"} <= names
        assert "taken from the champion" in out
        assert "4/4" in out

    def test_again_it_gives_the_same_differences(
        self, workplace: Path, capsys: pytest.CaptureFixture
    ) -> None:
        (workplace / "own.toml").write_text(SPACE.replace("epochs = 2", "epochs = 1"))
        tables = []
        for _ in range(2):
            assert self.ablate("--space=own.toml") == 0
            tables.append([line for line in capsys.readouterr().out.splitlines() if "  baseline  " in line])
        assert tables[0] == tables[1]
        assert len(tables[0]) == 3

    def test_only_the_groups_that_are_asked_for_are_trained(
        self, workplace: Path, capsys: pytest.CaptureFixture
    ) -> None:
        (workplace / "own.toml").write_text(SPACE)
        assert self.ablate("--space=own.toml", "--groups=width", "--epochs=2") == 0
        out = capsys.readouterr().out
        assert "ablation of iris: width | 4 trainings, 2 seeds each" in out
        # What is asked for on the command line counts before the comparison's own.
        assert "up to 2 epochs" in out
        assert "added to the baseline" not in out
        assert self.ablate("--space=own.toml", "--groups=width,widht") == 2
        err = capsys.readouterr().err
        assert "groups: must be all, or of width, added, but is 'widht'" in err
        assert self.ablate("--space=own.toml", "--groups=taken") == 2
        assert "taken needs a study" in capsys.readouterr().err

    def test_arms_of_one_seed_see_their_rows_in_one_order(
        self, workplace: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (workplace / "own.toml").write_text(SPACE)
        seen: dict[int, list[np.ndarray]] = {}
        ours = rows.order

        def noting(seed: int, *place: int, shuffle: bool) -> np.ndarray:
            found = ours(seed, *place, shuffle=shuffle)
            seen.setdefault(seed, []).append(found)
            return found

        monkeypatch.setattr(rows, "order", noting)
        assert self.ablate("--space=own.toml", "--groups=width") == 0
        (first, second) = seen.values()
        for orders in (first, second):
            # Two arms of an epoch each.
            assert len({order.tobytes() for order in orders}) == 1
            assert len(orders) >= 2
        assert not np.array_equal(first[0], second[0])

    def test_the_test_rows_are_opened_once_when_every_training_is_over(
        self, workplace: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (workplace / "own.toml").write_text(SPACE.replace("epochs = 2", "epochs = 1"))
        unseal, found = SealedSplit.unseal, []

        def noting(split: SealedSplit) -> Split:
            client = MlflowClient()
            every = [one.experiment_id for one in client.search_experiments()]
            trainings = client.search_runs(every, "tags.`pipeline.arm` != ''")
            found.append([run.info.status for run in trainings])
            return unseal(split)

        monkeypatch.setattr(SealedSplit, "unseal", noting)
        # The comparison at the small size is a stage of its own, with rows of its own.
        with (workplace / "own.toml").open("a") as file:
            file.write('size = "small"\n')
        assert self.ablate("--space=own.toml", "--seeds=1") == 0
        assert found == [["FINISHED"] * (2 + 3)] * 2

    def test_the_champion_s_study_and_trial_are_recorded(
        self, workplace: Path, capsys: pytest.CaptureFixture
    ) -> None:
        (workplace / "own.toml").write_text(SPACE)
        search(task="iris", trials=2, epochs=1, engine="fit", export="none", space="own.toml")
        assert self.ablate("--space=own.toml", "--groups=taken", "--epochs=1") == 0
        assert "champion: trial 1 of the study iris" in capsys.readouterr().out
        client = MlflowClient()
        (experiment,) = [one for one in client.search_experiments() if one.name == "iris"]
        (parent,) = client.search_runs([experiment.experiment_id], "tags.`pipeline.ablation` = 'iris'")
        found = {name: value for name, value in parent.data.params.items() if name.startswith("ablation.")}
        assert found == {
            "ablation.seeds": "2",
            "ablation.seed": "0",
            "ablation.size": "full",
            "ablation.epochs": "1",
            "ablation.precision": "float32",
            "ablation.groups": "taken",
            "ablation.study": "iris",
            "ablation.champion": "trial 1",
        }

    def test_a_study_without_a_drawn_trial_has_no_champion(
        self, workplace: Path, capsys: pytest.CaptureFixture
    ) -> None:
        (workplace / "own.toml").write_text(SPACE)
        search(task="iris", trials=1, epochs=1, engine="fit", export="none", space="own.toml")
        assert self.ablate("--space=own.toml", "--study=iris") == 2
        assert "study iris: no trial that the sampler drew completed" in capsys.readouterr().err

    def test_a_database_without_the_task_s_study_has_no_champion_either(
        self, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
    ) -> None:
        (workplace / "own.toml").write_text(SPACE)
        monkeypatch.setenv("PIPELINE_STORAGE", f"sqlite:///{workplace / 'optuna.db'}")
        assert self.ablate("--space=own.toml", "--groups=width") == 0
        assert "taken from the champion" not in capsys.readouterr().out

    def test_a_study_that_is_not_there_is_an_error(
        self, workplace: Path, capsys: pytest.CaptureFixture
    ) -> None:
        assert self.ablate("--study=nowhere") == 2
        assert "there is no study named 'nowhere'" in capsys.readouterr().err

    def test_a_space_with_nothing_to_compare_is_an_error(
        self, workplace: Path, capsys: pytest.CaptureFixture
    ) -> None:
        (workplace / "own.toml").write_text(SPACE.partition("[baseline]")[0])
        assert self.ablate("--space=own.toml") == 2
        assert "own.toml [baseline]: an ablation needs" in capsys.readouterr().err
