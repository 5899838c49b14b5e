"""The report page: what it shows, and that it opens anywhere and runs nothing."""

import base64
import io
import shutil
from html.parser import HTMLParser
from pathlib import Path

import keras
import matplotlib.image
import numpy as np
import pytest

from pipeline.evaluation.findings import Evaluation
from pipeline.evaluation.judging import judge
from pipeline.metrics import CLASSIFICATION
from pipeline.report import diagram, figures, passages
from pipeline.report import evaluation as evaluation_report
from pipeline.report import study as report
from pipeline.report.figures import Span
from pipeline.report.page import Section, as_text, write
from pipeline.values import Metric, Objective, Split

MAXIMIZE = Objective("val_accuracy", "maximize")
MINIMIZE = Objective("val_log_loss", "minimize")
TABLE = [["model", "test accuracy"], ["champion", "0.9000 [0.8000, 1.0000]"]]
HOSTILE = """</title><script>alert(1)</script>"&'<img src=x onerror=alert(2)>{{ 7 * 7 }}"""


class Page(HTMLParser):
    """A page as a browser takes it apart."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(file.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(data.strip())

    def pictures(self) -> list[str]:
        return [str(attributes["src"]) for tag, attributes in self.tags if tag == "img"]


def curves(epochs: int) -> dict[str, list[float]]:
    return {
        "loss": [1.0 / (place + 1) for place in range(epochs)],
        "val_loss": [1.2 / (place + 1) for place in range(epochs)],
        "accuracy": [1.0 - 0.5 / (place + 1) for place in range(epochs)],
        "val_accuracy": [1.0 - 0.6 / (place + 1) for place in range(epochs)],
    }


def draw(folder: Path, **changes) -> list[Path]:
    arguments = {
        "study": "iris",
        "table": TABLE,
        "history": [(0, 0.5), (1, 0.75), (3, 0.625)],
        "objective": MAXIMIZE,
        "curves": curves(5),
    }
    return report.draw(folder, **{**arguments, **changes})


def pixels(file: Path) -> np.ndarray:
    return matplotlib.image.imread(file)


def test_the_page_comes_first_then_its_pictures(tmp_path):
    files = draw(tmp_path)
    assert [file.name for file in files] == ["report.html", "history.png", "champion_curves.png"]
    assert all(file.parent == tmp_path and file.stat().st_size > 0 for file in files)


def test_the_page_shows_the_study_and_every_cell(tmp_path):
    page = Page(draw(tmp_path)[0])
    assert page.texts.count("Study iris") == 2
    for cell in (cell for row in TABLE for cell in row):
        assert cell in page.texts
    assert [tag for tag, _ in page.tags].count("tr") == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"study": HOSTILE},
        {"table": [[HOSTILE, "b"], ["c", "d"]]},
        {"table": [["a", "b"], ["c", HOSTILE]]},
    ],
    ids=["study", "header", "cell"],
)
def test_markup_in_names_is_shown_and_not_run(changes, tmp_path):
    harmless = Page(draw(tmp_path)[0])
    page = Page(draw(tmp_path, **changes)[0])
    assert any(HOSTILE in text for text in page.texts)
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in harmless.tags]
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    source = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script" not in source
    assert "49" not in "".join(page.texts)


def test_the_ensembles_curve_shows_both_methods_and_the_chosen_point():
    figure = figures.ensemble_curve([0.5, 0.25, 0.375], [0.5, 0.75], (2, 0.25), "log_loss")
    (axes,) = figure.axes
    drawn = {str(line.get_label()): np.array(line.get_data()).tolist() for line in axes.get_lines()}
    assert drawn["greedy selection"] == [[1, 2, 3], [0.5, 0.25, 0.375]]
    assert drawn["best models, equal weights"] == [[1, 2], [0.5, 0.75]]
    assert drawn["chosen ensemble"] == [[2], [0.25]]
    assert drawn["best single model"][1] == [0.5, 0.5]
    assert axes.get_ylabel() == "validation log_loss"
    assert len(figure.legends[0].get_texts()) == 4


def test_the_page_needs_nothing_from_elsewhere(tmp_path):
    file = draw(tmp_path)[0]
    source = file.read_text(encoding="utf-8").lower()
    for outside in ("http:", "https:", "url(", "@import", "<link", "<script", "<iframe"):
        assert outside not in source
    page = Page(file)
    for _, attributes in page.tags:
        assert "href" not in attributes
        assert str(attributes.get("src", "data:")).startswith("data:")


def test_the_pictures_in_the_page_are_the_files_beside_it(tmp_path):
    page, *files = draw(tmp_path)
    embedded = Page(page).pictures()
    assert len(embedded) == len(files) == 2
    for source, file in zip(embedded, files, strict=True):
        head, content = source.split(",")
        assert head == "data:image/png;base64"
        assert base64.b64decode(content, validate=True) == file.read_bytes()
        picture = matplotlib.image.imread(io.BytesIO(base64.b64decode(content)), format="png")
        assert picture.shape[0] > 300
        assert picture.shape[1] > 600
        # It is more than a white sheet.
        assert picture[..., :3].min() < 0.5


@pytest.mark.parametrize("objective", [MAXIMIZE, MINIMIZE])
@pytest.mark.parametrize("history", [[(0, 0.5)], [(4, 0.0)], [(0, 0.5), (1, 0.5)], [(0, 1e-9), (7, 1e9)]])
@pytest.mark.parametrize("epochs", [1, 2])
def test_short_and_extreme_studies_are_drawn(objective, history, epochs, tmp_path):
    _, *files = draw(tmp_path, objective=objective, history=history, curves=curves(epochs))
    for file in files:
        assert pixels(file).size > 0


def test_the_direction_decides_what_is_best_so_far(tmp_path):
    up, down = tmp_path / "up", tmp_path / "down"
    for folder, direction in ((up, "maximize"), (down, "minimize")):
        folder.mkdir()
        draw(folder, objective=Objective("val_loss", direction))
    assert not np.array_equal(pixels(up / "history.png"), pixels(down / "history.png"))


def test_a_curve_of_one_epoch_can_be_seen(tmp_path):
    def coloured(name: str, start: float) -> int:
        """Pixels in the colour of the losses."""
        folder = tmp_path / name
        folder.mkdir()
        values = {metric: [start if metric == "loss" else 1.0] for metric in curves(1)}
        draw(folder, curves=values)
        picture = pixels(folder / "champion_curves.png")[..., :3]
        return int((np.abs(picture - np.array([0x1F, 0x6F, 0xB4]) / 255).max(axis=-1) < 0.02).sum())

    # A loss that is NaN is not drawn; legend and labels are the same.
    assert coloured("drawn", 1.5) > coloured("not_drawn", float("nan"))


def test_it_is_the_same_page_on_every_call(tmp_path):
    first = [file.read_bytes() for file in draw(tmp_path)]
    assert first == [file.read_bytes() for file in draw(tmp_path)]


def test_sections_show_what_they_are_given_and_nothing_of_it_runs(tmp_path: Path) -> None:
    sections = [Section("Texts", HOSTILE, [["text"], [HOSTILE]]), Section(text=HOSTILE)]
    page = Page(write(tmp_path / "page.html", HOSTILE, sections))
    assert page.texts.count(HOSTILE.strip()) == 5
    assert not [tag for tag, _ in page.tags if tag in ("script", "img")]


def test_a_table_as_text_has_columns() -> None:
    assert as_text([["a", "bcd"], ["efgh", ""]]) == "a     bcd\nefgh"


class TestPassages:
    PROBABILITIES = np.array([[0.9, 0.1], [0.2, 0.8], [0.45, 0.55], [0.99, 0.01], [0.7, 0.3], [0.6, 0.4]])
    SPLIT = Split(np.arange(6)[:, None], np.array([0, 1, 1, 1, 0, 0]))

    def section(self) -> Section:
        found = passages.section(
            self.SPLIT, self.PROBABILITIES, ("bad", "good"), lambda rows: [f"row {row[0]}" for row in rows]
        )
        assert found is not None
        return found

    def test_the_surest_of_each_kind_are_shown_with_verdict_and_truth(self) -> None:
        assert list(self.section().rows)[1:] == [
            ["sure and right", "bad (90.0%)", "bad", "row 0"],
            ["sure and right", "bad (70.0%)", "bad", "row 4"],
            ["sure and right", "good (80.0%)", "good", "row 1"],
            ["sure and right", "good (55.0%)", "good", "row 2"],
            ["sure and wrong", "bad (99.0%)", "good", "row 3"],
            ["not sure", "bad (60.0%)", "bad", "row 5"],
        ]

    def test_without_words_there_is_no_section(self) -> None:
        assert passages.section(self.SPLIT, self.PROBABILITIES, ("bad", "good"), lambda _: None) is None

    def test_long_texts_are_cut(self) -> None:
        found = passages.section(
            self.SPLIT, self.PROBABILITIES, ("bad", "good"), lambda rows: ["x" * 5000] * len(rows)
        )
        assert found is not None
        assert {len(row[-1]) for row in list(found.rows)[1:]} == {602}


def test_the_diagram_shows_every_layer_and_the_summary_those_of_models_within(tmp_path: Path) -> None:
    inner = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, name="hidden")], name="inner")
    small = keras.Sequential([keras.Input((2,)), inner])
    large = keras.Sequential([keras.Input((2,)), inner, keras.layers.Dense(1), keras.layers.Dense(1)])
    assert "hidden" in diagram.summary(small)
    if shutil.which("dot") is None:
        pytest.skip("no Graphviz on this machine")
    drawn = [diagram.draw(model, tmp_path / f"{number}.png") for number, model in enumerate((small, large))]
    heights = [pixels(file).shape[0] for file in drawn if file]
    assert len(heights) == 2
    assert heights[0] < heights[1]


def test_where_graphviz_fails_or_keras_only_prints_there_is_no_diagram(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    file = tmp_path / "diagram.png"

    def failing(error: Exception | None) -> None:
        def plot(*arguments: object, **more: object) -> None:
            if error:
                raise error

        monkeypatch.setattr(keras.utils, "plot_model", plot)

    # As Keras within a notebook, as Keras elsewhere, and as pydot.
    for error in (None, ImportError("no dot"), OSError("no dot"), AssertionError("dot returned 1")):
        failing(error)
        assert diagram.draw(model, file) is None


def judged(classes: int, rows: int = 90, names: tuple[str, ...] = (), **broken: np.ndarray) -> Evaluation:
    """Three models that know the class of some rows."""
    rng = np.random.default_rng(0)
    labels = np.arange(rows) % classes
    answers = {}
    for model in ("baseline", "champion", "ensemble"):
        parts = rng.gamma(1.0, size=(rows, classes))
        parts[np.arange(rows), labels] += rng.gamma(1.0, size=rows)
        answers[model] = parts / parts.sum(axis=1, keepdims=True)
    names = names or tuple(f"class {number}" for number in range(classes))
    return judge(labels, {**answers, **broken}, {"": names}, CLASSIFICATION, 0)


class TestEvaluation:
    def test_classes_have_scores_differences_a_table_a_matrix_and_a_curve(self, tmp_path):
        sections = evaluation_report.sections(judged(3), tmp_path)
        assert [section.heading for section in sections] == [
            "Scores on the test rows",
            "Differences between models",
            "Classes",
            "Confusion matrix of the ensemble",
            "Calibration",
        ]
        pictures = [section.picture for section in sections if section.picture]
        assert [file.name for file in pictures] == [
            "differences.png",
            "confusion_matrix.png",
            "calibration.png",
        ]
        assert all(file.parent == tmp_path and pixels(file)[..., :3].min() < 0.5 for file in pictures)

    def test_tables_hold_every_score_pair_and_class(self, tmp_path):
        found = judged(3)
        scores, differences, classes = (
            section.rows for section in evaluation_report.sections(found, tmp_path) if section.rows
        )
        assert scores[0] == ["score", "better", "baseline", "champion", "ensemble"]
        assert differences[0] == ["score", "better", "ensemble − champion", "champion − baseline"]
        assert [row[:2] for row in scores[1:]] == [row[:2] for row in differences[1:]]
        assert [row[:2] for row in scores[1:3]] == [["accuracy", "more"], ["log_loss", "less"]]
        one = found.scores["ensemble"]["log_loss"]
        assert scores[2][-1] == f"{one.value:.4f} [{one.low:.4f}, {one.high:.4f}]"
        assert differences[2][-1].startswith(f"{found.differences[-4].score.value:+.4f} [")
        assert [row[:2] for row in classes[1:]] == [[f"class {number}", "30"] for number in range(3)]
        assert {len(row) for row in classes} == {2 + 2 * 3}

    def test_several_outputs_have_each_their_own(self, tmp_path):
        rng = np.random.default_rng(0)
        targets = {"age": rng.normal(size=(20, 1)), "a/b": np.arange(20) % 2}
        answers = {"age": rng.normal(size=(20, 1)), "a/b": rng.dirichlet([1, 1], 20)}
        metric = Metric("age_mse", "minimize", "age")
        found = judge(targets, {"champion": answers}, {"age": (), "a/b": ("x", "y")}, (metric,), 0)
        sections = evaluation_report.sections(found, tmp_path)
        assert [section.heading for section in sections] == [
            "Scores on the test rows",
            "Predicted against true: age",
            "Classes: a/b",
            "Confusion matrix of the champion: a/b",
            "Calibration: a/b",
        ]
        names = [section.picture.name for section in sections if section.picture]
        assert names == ["predicted_and_true_age.png", "confusion_matrix_a_b.png", "calibration_a_b.png"]

    @pytest.mark.parametrize(("classes", "drawn"), [(30, True), (31, False)])
    def test_of_very_many_classes_a_sentence_says_where_each_one_is(self, classes, drawn, tmp_path):
        sections = evaluation_report.sections(judged(classes), tmp_path)
        assert (tmp_path / "confusion_matrix.png").exists() == drawn
        assert any("evaluation/per_class.csv" in section.note for section in sections) != drawn
        assert (tmp_path / "calibration.png").exists()

    def test_what_is_not_defined_is_said_and_a_broken_model_is_not_drawn(self, tmp_path):
        sections = evaluation_report.sections(judged(3, ensemble=np.full((90, 3), np.nan)), tmp_path)
        scores = sections[0].rows
        assert {row[-1] for row in scores[1:]} == {"not defined"}
        assert "Confusion matrix of the champion" in [section.heading for section in sections]
        every = {name: np.full((90, 3), np.nan) for name in ("baseline", "champion", "ensemble")}
        assert len(evaluation_report.sections(judged(3, **every), tmp_path)) == 2

    def test_no_class_name_runs_or_fails(self, tmp_path):
        names = (HOSTILE, "$\\frac{$", "two\nlines")
        sections = evaluation_report.sections(judged(3, names=names), tmp_path)
        page = Page(write(tmp_path / "page.html", "page", sections))
        assert HOSTILE in page.texts
        assert not [tag for tag, _ in page.tags if tag == "script"]


def test_many_metrics_stand_below_each_other_and_few_beside() -> None:
    spans = [Span("a", 0.1, 0.0, 0.2), Span("b", float("nan"), float("nan"), float("nan"))]

    def grid(metrics: int) -> tuple[int, int]:
        figure = figures.spans({f"m{number}": ("maximize", spans) for number in range(metrics)})
        places = {axes.get_subplotspec().get_geometry()[:2] for axes in figure.axes}
        assert sum(axes.axison for axes in figure.axes) == metrics
        (found,) = places
        return found

    assert [grid(metrics) for metrics in (1, 2, 3, 4, 7)] == [(1, 1), (1, 2), (1, 3), (2, 3), (3, 3)]
