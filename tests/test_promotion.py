"""Nightly searches of new rows of one schema: the champion of last night answers tonight's raw rows."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from PIL import Image

from pipeline import closing, search
from pipeline.datasets import fingerprints
from pipeline.datasets.pictures import Album
from pipeline.errors import RunError
from pipeline.promotion import rival
from pipeline.result import Result
from pipeline.source import Source
from pipeline.space import file_of
from pipeline.tasks import table
from pipeline.tracking import answering
from pipeline.tracking.answering import Answering

NAME = "nightly"


def night(study: str, *, epochs: int = 20, **more: object) -> Result:
    usual = {"trials": 1, "members": 1, "engine": "fit", "export": "none", "register": NAME}
    found = search(study=study, epochs=epochs, **{**usual, **more})
    assert found is not None
    return found


def aliases() -> dict[str, str]:
    (model,) = MlflowClient().search_registered_models(f"name = '{NAME}'")
    return {alias: str(number) for alias, number in model.aliases.items()}


def written(file: Path, seed: int, *, noise: bool = False, first: str = "size,colour,kind") -> str:
    """A table whose class says size and colour: later nights have shifted numbers, and a colour more."""
    rng = np.random.default_rng(seed)
    colours = ("red", "blue", "green")[: 2 + (seed > 0)]
    lines = [first]
    for _ in range(150):
        size, colour = rng.normal(0.3 * seed, 1.0 + 0.3 * seed), rng.choice(colours)
        kind = "big" if size + (colour == "red") > 0.5 else "small"
        lines.append(f"{size:.4f},{colour},{rng.choice(['big', 'small']) if noise else kind}")
    file.write_text("\n".join(lines))
    return str(file)


def of_table(workplace: Path, seed: int, **more: object) -> dict[str, object]:
    file = written(workplace / f"night{seed}{''.join(more)}.csv", seed, **more)  # type: ignore[arg-type]
    return {"task": "table", "data": file, "target": "kind"}


def of_texts(workplace: Path, seed: int, *, noise: bool = False) -> dict[str, object]:
    """Reviews; each night has words of its own beside those of all."""
    rng = np.random.default_rng(seed)
    lines = ["say,kind"]
    for row in range(150):
        kind = "praise" if row % 2 else "blame"
        word = rng.choice(["good", "fine"] if kind == "praise" else ["bad", "poor"])
        if noise:
            word = rng.choice(["good", "fine", "bad", "poor"])
        lines.append(f"the film{seed} of day {rng.integers(9)} was {word},{kind}")
    file = workplace / f"night{seed}{noise}.csv"
    file.write_text("\n".join(lines))
    return {"task": "text", "data": str(file), "text": "say", "target": "kind"}


def of_pictures(workplace: Path, seed: int, *, noise: bool = False) -> dict[str, object]:
    """Bright and dark squares; each night's are of another size."""
    rng = np.random.default_rng(seed)
    folder = workplace / f"night{seed}{noise}"
    for number in range(150):
        kind = ("bright", "dark")[number % 2]
        pixels = rng.integers(0, 90, (8 + seed, 8 + seed), np.uint8)
        pixels += 140 if (rng.random() < 0.5 if noise else kind == "bright") else 0
        (folder / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / kind / f"{number}.png")
    return {"task": "images", "data": str(folder)}


@pytest.mark.slow
@pytest.mark.parametrize("rows", [of_table, of_texts, of_pictures])
def test_a_champion_of_other_rules_is_compared_on_raw_rows(
    workplace: Path, rows: Callable[..., dict[str, object]]
) -> None:
    first = night("first", epochs=1, **rows(workplace, 0, noise=True))
    assert first.registered.endswith("is the champion: there was none")

    better = night("better", epochs=30, **rows(workplace, 1))
    assert "is the champion: better than" in better.registered, better.registered
    assert better.registered.endswith("of version 1 on the same rows")
    assert aliases() == {"champion": "2"}

    # It has learned nothing that helps on these rows, which the champion answers well.
    more = {"space": str(worse_space(workplace, rows))}
    worse = night("worse", epochs=1, **rows(workplace, 2), **more)
    assert "is the challenger: not better than" in worse.registered, worse.registered
    assert aliases() == {"champion": "2", "challenger": "3"}


def worse_space(workplace: Path, rows: Callable[..., object]) -> Path:
    """The task's own space with a learning rate that teaches nothing."""
    name = {of_table: "table", of_texts: "text", of_pictures: "images"}[rows]
    lines = file_of(name).read_text().splitlines()
    lines = ["learning_rate = 1e-12" if line.startswith("learning_rate") else line for line in lines]
    file = workplace / "worse.toml"
    file.write_text("\n".join(lines))
    return file


def test_what_cannot_be_compared_says_exactly_why(workplace: Path) -> None:
    night("first", epochs=1, **of_table(workplace, 0))
    other = written(workplace / "renamed.csv", 1, first="length,colour,kind")
    found = night("renamed", epochs=1, task="table", data=other, target="kind")
    assert "is the challenger: version 1 cannot be scored: it takes the column 'size', which" in (
        found.registered
    )
    found = night("number", epochs=1, task="table", data=other, target="length")
    assert found.registered.endswith(
        "version 1 cannot be compared: it answers with a class, not with a number"
    )
    found = night("colour", epochs=1, task="table", data=other, target="colour")
    assert "cannot be compared: it knows none of the classes blue, green, red, but big" in found.registered
    assert aliases()["champion"] == "1"


def test_rows_that_the_champion_has_learned_from_do_not_count(workplace: Path) -> None:
    """Tonight's file is last night's with rows after it, so many of its validation rows are no news."""
    old = Path(str(of_table(workplace, 0)["data"]))
    night("first", epochs=1, task="table", data=str(old), target="kind")
    learned = set(rows_of(old, "train"))
    both = workplace / "both.csv"
    both.write_text(old.read_text() + "\n" + "\n".join(written_lines(workplace)))
    found = night("second", epochs=1, task="table", data=str(both), target="kind")
    judged_by = rows_of(both, "validation")
    unseen = sum(row not in learned for row in judged_by)
    assert 20 <= unseen < len(judged_by)
    assert found.registered.endswith(
        f"on the {unseen} of {len(judged_by)} validation rows that it has not learned from"
    )


def written_lines(workplace: Path) -> list[str]:
    return Path(written(workplace / "more.csv", 1)).read_text().splitlines()[1:]


def rows_of(file: Path, split: str) -> list[str]:
    """A split's rows as lines, by where they lie in the file."""
    data = table.task(Source(str(file), "kind")).load("full")
    lines = file.read_text().splitlines()[1:]
    return [lines[place] for place in getattr(data, split).places]


def test_with_few_others_all_rows_count_and_it_is_told(workplace: Path) -> None:
    asked = of_table(workplace, 0)
    night("first", epochs=1, **asked)
    lines = Path(str(asked["data"])).read_text().splitlines()
    # The same rows in another order: another split of them.
    again = workplace / "again.csv"
    again.write_text("\n".join([lines[0], *reversed(lines[1:])]))
    found = night("second", epochs=1, task="table", data=str(again), target="kind")
    learned = set(rows_of(Path(str(asked["data"])), "train"))
    judged_by = rows_of(again, "validation")
    known = sum(row in learned for row in judged_by)
    assert known > len(judged_by) - 20
    assert found.registered.endswith(
        f"of version 1 on the same rows, of which it has learned from {known} of {len(judged_by)}"
    )


def test_the_present_one_of_a_refit_is_asked_as_it_was_before(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    night("first", epochs=2, refit="true", **of_table(workplace, 0))
    asked: list[Path] = []
    load = answering.load_folder

    def noted(folder: Path) -> Answering:
        asked.append(folder)
        assert not (folder / "artifacts" / "judged.keras").exists()
        return load(folder)

    monkeypatch.setattr(answering, "load_folder", noted)
    before = MlflowClient().get_model_version(NAME, "1").source
    night("second", epochs=2, **of_table(workplace, 1))
    assert len(asked) == 1
    # What the store has is not touched.
    assert MlflowClient().get_model_version(NAME, "1").source == before
    mlflow.artifacts.download_artifacts(f"models:/{NAME}/1/artifacts/judged.keras", dst_path=str(workplace))


class Made:
    """Answers with what it is made with."""

    def __init__(self, answers: object) -> None:
        self._answers = answers

    def predict(self, rows: object) -> object:
        return self._answers


def test_answers_are_matched_by_the_names_of_classes(workplace: Path) -> None:
    found = pd.DataFrame(
        {"class": ["b"], "probability_a": [0.1], "probability_b": [0.7], "probability_z": [0.2]}
    )
    told = {
        "form": {"kind": "texts", "column": "say"},
        "inputs": [{"name": ""}],
        "outputs": [{"name": "", "classes": ["a", "b", "z"]}],
    }
    data = table.task(Source(written(workplace / "t.csv", 0), "kind")).load("full")
    of_three = replace(data, classes=("b", "new", "a"))
    rows = [pd.DataFrame({"say": ["hello"], "beside": [1]})]
    answered = rival.answers(Answering(Made(found), told), rows, of_three)
    # The classes in the study's order, the unknown one never; what the study does not know comes last, so
    # that an answer with it is wrong.
    np.testing.assert_allclose(answered, [[0.7, 0.0, 0.1, 0.2]])
    with pytest.raises(RunError, match="it takes the column 'say', which the rows do not have"):
        rival.answers(Answering(Made(found), told), [pd.DataFrame({"other": ["x"]})], of_three)


def test_a_source_that_is_written_anew_is_not_read_as_what_it_was(workplace: Path) -> None:
    asked = of_table(workplace, 0)
    file = Path(str(asked["data"]))
    task = table.task(Source(str(file), "kind"))
    data = task.load("full")
    assert task.raw is not None
    rows = next(task.raw(data.validation))
    assert len(rows) == data.validation.rows
    assert "kind" not in rows
    file.write_text(file.read_text() + "\n1.0,red,big")
    with pytest.raises(RunError, match="is not the file any more that was read"):
        next(task.raw(data.validation))


def test_pictures_are_read_again_as_they_lie_in_the_split(workplace: Path) -> None:
    asked = of_pictures(workplace, 0)
    album = Album(Source(data=str(asked["data"])))
    data = album.load("full")
    (rows,) = album.raw(data.validation)
    kinds = {file.read_bytes(): file.parent.name for file in Path(str(asked["data"])).rglob("*.png")}
    assert [kinds[content] for content in rows["image"]] == [
        data.classes[number] for number in data.validation.labels
    ]
    for file in Path(str(asked["data"])).rglob("*.png"):
        file.write_bytes(b"other")
    with pytest.raises(RunError, match="is not the file any more"):
        next(album.raw(data.validation))


def test_a_row_has_one_fingerprint_whatever_wrote_its_file(workplace: Path) -> None:
    as_text = pd.DataFrame({"a": ["3.0", "x"], "b": ["", "true"]}, dtype="str")
    as_values = pd.DataFrame({"n": [3, "x"], "m": [None, True]}, dtype=object)
    one = fingerprints.of_rows(as_text, ["a", "b"], ["yes", "no"])
    np.testing.assert_array_equal(one, fingerprints.of_rows(as_values, ["n", "m"], ["yes", "no"]))
    assert not np.isin(one, fingerprints.of_rows(as_text, ["b", "a"], ["yes", "no"])).any()
    assert not np.isin(one, fingerprints.of_rows(as_text, ["a", "b"], ["no", "yes"])).any()


def test_a_search_whose_rows_are_gone_ends_with_its_models(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = of_table(workplace, 0)
    select = closing.Closing._select

    def gone(self: object, *given: object) -> object:
        Path(str(asked["data"])).unlink(missing_ok=True)
        return select(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(closing.Closing, "_select", gone)
    with caplog.at_level(logging.WARNING):
        found = night("gone", epochs=1, **asked)
    assert "is the champion" in found.registered
    assert "register: the rows cannot be read again: data: " in caplog.text
