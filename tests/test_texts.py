"""A person's texts become word numbers as a finished model makes them of the same texts."""

import logging
from dataclasses import asdict
from pathlib import Path

import keras
import numpy as np
import pytest

from pipeline import tasks
from pipeline.carried import words as carried
from pipeline.datasets import texts
from pipeline.datasets.texts import Corpus
from pipeline.errors import UserError
from pipeline.source import Source
from pipeline.tasks import text as task
from pipeline.tasks.task import Task
from pipeline.values import Data, Settings

WORDS = ("good", "fine", "bad", "poor")


def _file(place: Path, rows: int = 40, end: str = "") -> Path:
    """Texts whose second word tells their class, and their number."""
    lines = [
        f'"it was {WORDS[n % 4]}, film {"very " * (n % 7)}",{("up", "down")[n % 4 // 2]},{n % 4 + n / 100}'
        for n in range(rows)
    ]
    file = place / "rows.csv"
    file.write_text("\n".join(["say,verdict,stars", *lines, end]), encoding="utf-8")
    return file


def _source(file: Path, target: str = "verdict", **more: str) -> Source:
    return Source(data=str(file), text="say", target=target, **more)  # type: ignore[arg-type]


def _settings(made: Task, network: str) -> Settings:
    return (
        {p.name: p.default for p in made.parameters} | made.read_space(None).baseline | {"network": network}
    )


# Words


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Don't STOP, now!", ["don't", "stop", "now"]),
        ("‘quoted’ and don’t", ["quoted", "and", "don't"]),
        ("snake_case 3.5 e-mail", ["snake", "case", "3", "5", "e", "mail"]),
        ("a<br />b <a href='x'>c</a> <!-- d --> 1 < 2 > 1", ["a", "b", "c", "d", "1", "2", "1"]),
        ("Tom &amp; Jerry &lt;b&gt;", ["tom", "jerry", "b"]),
        ("great👍🏽👍 $5", ["great", "👍", "👍", "$", "5"]),
        ("❤️ 👩‍🚀", ["❤", "👩", "🚀"]),
        ("这部电影很好。看！", list("这部电影很好看")),
        ("映画は良い", list("映画は良い")),
        ("ดีมาก", list("ดีมาก")),
        ("영화가 좋다", ["영화가", "좋다"]),
        ("हिन्दी फ़िल्म", ["हिन्दी", "फ़िल्म"]),
        ("ＦＵＬＬ ﬁne É", ["full", "fine", "é"]),
        ("", []),
        (" \n\t… —", []),
    ],
)
def test_words_of_any_language(text: str, found: list[str]) -> None:
    assert carried.words(text, "any") == found


def test_words_take_time_in_proportion(monkeypatch: pytest.MonkeyPatch) -> None:
    # What a careless pattern reads again from each of its beginnings: this would not end.
    for text in ("<a" * 300_000, "<!--" * 200_000, "&" * 500_000, "'" * 500_000):
        carried.words(text, "any")


def test_keras_rule_is_that_of_its_own_sets() -> None:
    assert carried.words("It's <br/> a film_noir!", "keras") == ["it's", "br", "a", "film", "noir"]


# Rows


def test_sequences_are_those_that_the_form_makes_of_the_texts(tmp_path: Path) -> None:
    file = _file(tmp_path)
    corpus = Corpus(_source(file))
    data, form = corpus.load("full"), corpus.form
    assert (form.column, form.rule, data.words) == ("say", "any", {"": len(form.words)})
    known = {word: number for number, word in enumerate(form.words) if number >= form.marks}
    served = np.zeros((40, form.length), np.int32)
    for out, text in zip(served, corpus.column.texts, strict=True):
        carried.number(carried.words(text, form.rule), known, form.start, form.rare, out)
    parts = (data.train, data.validation, data.test.unseal())
    found = np.concatenate([part.one_input for part in parts])
    assert sorted(map(bytes, found)) == sorted(map(bytes, served))
    # And the texts can be read again.
    assert "was" in corpus.shown(data.train.one_input[:1])[0].split()


def test_words_are_numbered_by_the_training_rows_alone(tmp_path: Path) -> None:
    file = _file(tmp_path)
    rows = file.read_text().splitlines()
    data = Corpus(_source(file)).load("full")
    # Each text is another, by its number.
    marked = [rows[0], *(row.replace("film", f"own{n} own{n}") for n, row in enumerate(rows[1:]))]
    (tmp_path / "rows.csv").write_text("\n".join(marked))
    corpus = Corpus(_source(file))
    assert not [word for word in corpus.form.words if word.startswith("own")], "a word of one text alone"
    # Words that the validation and test rows share are rare to the model.
    order = np.concatenate([p.one_input for p in (data.train, data.validation)])
    assert len(order) == 32
    train = corpus.load("full").train.rows
    assert train == 24


def test_the_length_is_that_of_nearly_all_training_texts(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    lines = ["say,verdict", *(f"{'w ' * (4 if n else 10_000)},{'ab'[n % 2]}" for n in range(50))]
    file.write_text("\n".join(lines))
    assert Corpus(_source(file)).form.length == 5
    file.write_text("\n".join(["say,verdict", *(f"{'w ' * 1000},{'ab'[n % 2]}" for n in range(50))]))
    corpus = Corpus(_source(file))
    assert corpus.form.length == texts.MOST_LENGTH
    # Of a longer text the last words count: its opening is not there.
    assert set(corpus.load("full").train.one_input.ravel()) == {3}


def test_there_are_at_most_so_many_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "MOST_WORDS", 5)
    data = Corpus(_source(_file(tmp_path))).load("full")
    assert data.words == {"": 5}
    assert data.train.one_input.max() == 4


def test_empty_texts_and_missing_targets_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = _file(tmp_path, end='"",up,1\n  ,down,2\ngood,,3')
    with caplog.at_level(logging.WARNING):
        data = Corpus(_source(file)).load("full")
    assert sum(part.rows for part in (data.train, data.validation, data.test)) == 42
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        f"data: {file}: 1 of 43 rows are left out: no target",
        f"data: {file}: 2 of 42 texts are empty",
    ]


def test_numbers_are_an_output_of_their_own(tmp_path: Path) -> None:
    data = Corpus(_source(_file(tmp_path), "stars")).load("full")
    assert (data.classes, dict(data.outputs)) == ((), {"prediction": ()})
    targets = data.train.targets["prediction"]
    assert (targets.shape, targets.dtype) == ((24, 1), np.float32)
    assert (
        tasks.find("text", _source(_file(tmp_path), "stars")).read_space(None).objective.metric == "val_mse"
    )
    few = _source(_file(tmp_path), "verdict", problem="classification")
    assert Corpus(few).load("full").classes == ("down", "up")


def test_numbers_with_commas_are_read_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("say;stars\n" + "".join(f"good film;{n},5\n" for n in range(40)), encoding="utf-8")
    data = Corpus(_source(file, "stars")).load("full")
    assert data.train.targets["prediction"].max() < 40
    assert "target stars: a comma stands for the point: '0,5' is read as 0.5" in caplog.text


def test_rows_may_be_split_by_time(tmp_path: Path) -> None:
    file = _file(tmp_path)
    lines = file.read_text().splitlines()
    file.write_text("\n".join([f"{lines[0]},day", *(f"{line},{n}" for n, line in enumerate(lines[1:]))]))
    data = Corpus(_source(file, time="day")).load("full")
    assert data.train.times.max() < data.validation.times.min()
    assert data.validation.times.max() < data.test.unseal().times.min()


@pytest.mark.parametrize(
    ("content", "more", "fault"),
    [
        ("say,verdict\nhi,a\n", {"text": "words"}, "text: {file} has no column 'words'"),
        ("say,verdict\nhi,a\n", {"target": "kind"}, "target: {file} has no column 'kind'"),
        ("say,verdict\nhi,a\n", {"target": "say"}, "text: must be another column than the target"),
        ("say,verdict\nhi,a\n", {}, "target: the column 'verdict' must have at least two different values"),
        ("say,verdict\nhi,a\nhi,b\n", {}, "has another value in each of the 2 rows"),
        ("say,verdict\nhi,a\nho,a\n", {}, "but all are 'a'"),
        ("say,verdict\n" + ",a\n,b\n" * 5, {}, "text: no word of the column 'say' is in two of the"),
        (
            "say,verdict\n" + "".join(f"w{n},{'ab'[n % 2]}\n" for n in range(10)),
            {},
            "text: no word of the column 'say' is in two of the",
        ),
        (
            "say,verdict\n" + "".join(f"hi,{1e9 + n / 100}\n" for n in range(60)),
            {},
            "target: the column 'verdict' has numbers up to 1e+09 that differ by 0.173181 only",
        ),
    ],
)
def test_what_cannot_be_used_is_one_error(
    tmp_path: Path, content: str, more: dict[str, str], fault: str
) -> None:
    file = tmp_path / "rows.csv"
    file.write_text(content)
    source = Source(**{"data": str(file), "text": "say", "target": "verdict", **more})  # type: ignore[arg-type]
    with pytest.raises(UserError) as caught:
        Corpus(source).load("full")
    assert fault.format(file=file) in str(caught.value)


# Models


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> tuple[Task, Data]:
    made = task.task(_source(_file(tmp_path_factory.mktemp("rows"), 80)))
    return made, made.load("full")


@pytest.mark.parametrize("network", ["multi_hot", "conv1d", "lstm"])
def test_each_network_learns_what_a_word_tells(rows: tuple[Task, Data], network: str) -> None:
    made, data = rows
    keras.utils.set_random_seed(0)
    model = made.build({**_settings(made, network), "learning_rate": 0.02}, data)
    model.fit(data.train.inputs, data.train.targets, epochs=15, verbose=0)
    assert (
        model.evaluate(data.validation.inputs, data.validation.targets, verbose=0, return_dict=True)[
            "accuracy"
        ]
        > 0.9
    )


def test_the_bag_is_a_dense_layer_on_multi_hot_words(rows: tuple[Task, Data]) -> None:
    made, data = rows
    model = made.build(_settings(made, "multi_hot"), data)
    summed = keras.Model(
        model.input, next(x for x in model.layers if isinstance(x, keras.layers.Activation)).input
    )
    inputs = data.train.one_input
    multi_hot = np.zeros((len(inputs), data.words[""]), np.float32)
    for row, numbers in enumerate(inputs):
        multi_hot[row, numbers[numbers >= 3]] = 1
    kernel = next(x for x in model.layers if isinstance(x, keras.layers.Embedding)).get_weights()[0]
    # A sum of at most thirty float32 numbers below one.
    np.testing.assert_allclose(summed.predict(inputs, verbose=0), multi_hot @ kernel, atol=1e-5)


def test_a_number_is_answered_in_its_own_units(tmp_path: Path) -> None:
    made = task.task(_source(_file(tmp_path, 80), "stars"))
    data = made.load("full")
    keras.utils.set_random_seed(0)
    model = made.build({**_settings(made, "multi_hot"), "learning_rate": 0.02}, data)
    found = model.fit(data.train.inputs, data.train.targets, epochs=60, verbose=0).history
    assert {"mse", "mae"} <= found.keys()
    # A guess's is the variance, the loss one.
    variance = float(data.train.targets["prediction"].var())
    assert found["mse"][-1] < 0.2 * variance
    assert found["loss"][-1] == pytest.approx(found["mse"][-1] / variance, rel=1e-3)


def test_a_form_is_json(tmp_path: Path) -> None:
    form = asdict(Corpus(_source(_file(tmp_path))).form)
    assert form["words"][:3] == ("<padding>", "<start>", "<rare>")
    assert form["example"].startswith("it was")
