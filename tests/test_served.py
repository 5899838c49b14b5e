"""What MLflow serves: rows in every form become exactly what the model has learned from, or one error."""

import base64
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from PIL import Image, ImageDraw

from pipeline.datasets import keras_sets, splits
from pipeline.forms import Arrays, Columns, Drawing, Form, Pictures, Texts
from pipeline.tracking.models import Servable
from pipeline.tracking.served import Served
from pipeline.values import Data, Split

CLASSES = ("ant", "bee", "cat")


def data_of(inputs: Any, classes: tuple[str, ...] = CLASSES, **more: Any) -> Data:
    rows = len(next(iter(inputs.values())) if isinstance(inputs, dict) else inputs)
    targets = np.arange(rows) % 3
    some = Split(inputs, more.pop("targets", targets.astype(np.int32)))
    return splits.data("made_up", "made up", classes, (some, some, some), **more)


def served(model: keras.Model, data: Data, form: Form, folder: Path) -> Served:
    """The model as MLflow loads it."""
    file, told = folder / "model.keras", folder / "form.json"
    model.save(file)
    servable = Servable(model, data, form)
    told.write_text(json.dumps(servable.told()))
    made = Served()
    artifacts = {"model": str(file), "form": str(told), **servable.carried}
    made.load_context(SimpleNamespace(artifacts=artifacts))
    return made


def classifier(shape: tuple[int, ...], units: int = 3, **given: Any) -> keras.Model:
    layers = [keras.layers.Rescaling(0.01), keras.layers.Flatten()]
    layers.append(keras.layers.Dense(units, "softmax" if units > 1 else "sigmoid"))
    model = keras.Sequential([keras.Input(shape, **given), *layers])
    model.compile("sgd", "sparse_categorical_crossentropy" if units > 1 else "binary_crossentropy")
    return model


def refused(model: Served, rows: Any) -> str:
    with pytest.raises(MlflowException) as caught:
        model.predict(None, rows)
    # MLflow's server answers it with 400.
    assert caught.value.get_http_status_code() == 400
    return str(caught.value.message)


# Tables

NAMES = ("length (cm)", "width, of it", 'the "other"')


@pytest.fixture
def table(tmp_path: Path) -> tuple[Served, keras.Model, pd.DataFrame]:
    inputs = np.random.default_rng(0).normal(size=(1500, 3)).astype(np.float32)
    model, data = classifier((3,)), data_of(inputs)
    return served(model, data, Columns(NAMES), tmp_path), model, pd.DataFrame(inputs, columns=NAMES)


@pytest.mark.parametrize("rows", [1, 2, 16, 17, 1500])
def test_a_table_is_answered_as_the_model_does_whatever_the_number_of_rows(table, rows: int) -> None:
    ready, model, frame = table
    # Other columns, and another order of them, do not matter; the index is kept.
    given = frame[:rows].assign(id=range(rows))[["id", *reversed(NAMES)]].set_index(np.arange(rows) + 7)
    found = ready.predict(None, given)
    expected = model.predict(frame[:rows].to_numpy(), verbose=0)
    # Float32 sums in another order of rows.
    np.testing.assert_allclose(found[[f"probability_{name}" for name in CLASSES]], expected, rtol=1e-5)
    assert list(found["class"]) == [CLASSES[place] for place in expected.argmax(axis=1)]
    assert list(found.index) == list(given.index)


def test_no_rows_have_no_answers_in_the_same_columns(table) -> None:
    ready, _, frame = table
    none, one = ready.predict(None, frame[:0]), ready.predict(None, frame[:1])
    assert (len(none), list(none)) == (0, list(one))


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_a_number_that_is_none_is_refused_with_its_place(table, bad: float) -> None:
    ready, _, frame = table
    frame = frame[:5].astype(float)
    frame.loc[3, NAMES[1]] = bad
    assert refused(ready, frame) == f"row 3, {NAMES[1]}: must be a finite number, but is {bad}"


def test_one_sigmoid_and_one_logit_answer_with_both_classes(tmp_path: Path) -> None:
    inputs = np.random.default_rng(1).normal(size=(40, 4)).astype(np.float32)
    data = data_of(inputs, ("no", "yes"))
    names = tuple("abcd")
    for logits in (False, True):
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, None if logits else "sigmoid")])
        model.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=logits))
        found = served(model, data, Columns(names), tmp_path).predict(
            None, pd.DataFrame(inputs, columns=names)
        )
        raw = model.predict(inputs, verbose=0)[:, 0]
        yes = 1 / (1 + np.exp(-raw)) if logits else raw
        np.testing.assert_allclose(found["probability_yes"], yes, rtol=1e-5)
        np.testing.assert_allclose(found["probability_no"] + found["probability_yes"], 1)
        assert list(found["class"]) == ["yes" if one > 0.5 else "no" for one in yes]


def test_rows_with_a_field_more_than_the_heading_are_refused(table) -> None:
    ready, _, _ = table
    text = "a,b,c\n5.1,3.5,1.4,0\n".replace(
        "a,b,c", ",".join(f'"{n}"'.replace('"the "other""', '"the ""other"""') for n in NAMES)
    )
    assert "more fields than there are names" in refused(ready, pd.read_csv(io.StringIO(text)))


# Arrays


def test_several_inputs_and_outputs_are_answered_by_name(tmp_path: Path) -> None:
    inputs = {name: keras.Input((4,), dtype="int32", name=name) for name in ("text", "question")}
    vectors = {
        name: keras.layers.Flatten()(keras.layers.Embedding(9, 2)(part)) for name, part in inputs.items()
    }
    joined = keras.layers.Concatenate()(list(vectors.values()))
    outputs = {
        "which": keras.layers.Dense(3, "softmax", name="which")(joined),
        "age": keras.layers.Dense(1, name="age")(joined),
    }
    model = keras.Model(inputs, outputs)
    model.compile("sgd", {"which": "sparse_categorical_crossentropy", "age": "mse"})
    rng = np.random.default_rng(0)
    rows = {name: rng.integers(0, 9, (20, 4)).astype(np.int32) for name in inputs}
    targets = {"which": np.arange(20) % 3, "age": np.arange(20.0)}
    data = data_of(rows, (), targets=targets, outputs={"which": CLASSES, "age": ()})
    ready = served(model, data, Arrays({"text": 9, "question": 9}), tmp_path)
    found, expected = ready.predict(None, rows), model.predict(rows, verbose=0)
    assert list(found) == ["which_class", *(f"which_probability_{name}" for name in CLASSES), "age"]
    np.testing.assert_allclose(found["age"], expected["age"][:, 0], rtol=1e-5)
    np.testing.assert_allclose(found["which_probability_bee"], expected["which"][:, 1], rtol=1e-5)
    rows["question"][7, 2] = 9
    assert refused(ready, rows).startswith("row 7, question: word numbers must be 0 to 8, but")
    # Also behind the first batch of 1,024 rows.
    many = {name: np.zeros((2000, 4), np.int32) for name in rows}
    many["text"][1500, 0] = 9
    assert refused(ready, many).startswith("row 1500, text: word numbers must be 0 to 8, but")


@pytest.mark.parametrize("short", ["text", "question"])
def test_inputs_that_have_other_numbers_of_rows_are_refused(tmp_path: Path, short: str) -> None:
    inputs = {name: keras.Input((4,), name=name) for name in ("text", "question")}
    joined = keras.layers.Concatenate()(list(inputs.values()))
    model = keras.Model(inputs, keras.layers.Dense(3, "softmax")(joined))
    model.compile("sgd", "sparse_categorical_crossentropy")
    rows = {name: np.zeros((20, 4), np.float32) for name in inputs}
    ready = served(model, data_of(rows), Arrays(), tmp_path)
    given = {name: part[: 5 if name == short else 20] for name, part in rows.items()}
    told = ", ".join(f"{name}: {len(part)}" for name, part in given.items())
    assert refused(ready, given) == f"the inputs must have the same number of rows, but have {told}"


# Texts

WORDS = ("<padding>", "<start>", "<rare>", "<unused>", "the", "film", "was", "good", "don't")


@pytest.mark.parametrize("length", [0, 5])
def test_a_text_becomes_what_keras_makes_of_its_word_numbers(tmp_path: Path, length: int) -> None:
    width = length or len(WORDS)
    inputs = np.zeros((4, width), np.int32 if length else np.uint8)
    model, data = classifier((width,), 1), data_of(inputs, ("negative", "positive"))
    ready = served(model, data, Texts(WORDS, 4, 1, 2, "The film.", length), tmp_path)
    texts = ["The film was GOOD!", "unheard; don't... the-film", "", "film " * 9]
    reviews = [[1, 4, 5, 6, 7], [1, 2, 8, 4, 5], [1], [1] + [5] * 9]
    array = np.array([np.array(one) for one in reviews], dtype=object)
    rows = keras_sets.padded(array, len(WORDS), length) if length else keras_sets.multi_hot(array, len(WORDS))
    found = ready.predict(None, pd.DataFrame({"text": texts}))
    expected = model.predict(rows, verbose=0)[:, 0]
    np.testing.assert_allclose(found["probability_positive"], expected, rtol=1e-5)
    for cell, what in ((None, "missing"), (np.nan, "missing"), (pd.NA, "missing"), (5, "int"), ([], "list")):
        given = pd.DataFrame({"text": pd.Series(["good", cell], dtype=object)})
        assert refused(ready, given) == f"row 1, text: must be a text, but is {what}"


def test_texts_of_any_language_are_numbered_as_in_training(tmp_path: Path) -> None:
    words = ("<padding>", "<start>", "<rare>", "good", "很", "👍")
    form = Texts(words, 3, 1, 2, "good 👍", length=4, column="say", rule="any")
    model = keras.Sequential([keras.Input((4,), dtype="int32"), keras.layers.Rescaling(1.0)])
    model.compile("sgd", "mse")
    some = Split(np.zeros((3, 4), np.int32), np.arange(3, dtype=np.int32))
    data = splits.data("made_up", "made up", CLASSES, (some, some, some), words={"": 6})
    ready = served(model, data, form, tmp_path)
    given = pd.DataFrame({"say": ["Good<br/>这很👍🏽", "", "good " * 9]})
    assert ready._read(given, 0)[""].tolist() == [[3, 2, 4, 5], [0, 0, 0, 1], [3, 3, 3, 3]]


def test_a_model_that_takes_other_words_is_another(tmp_path: Path) -> None:
    model, some = classifier((4,)), np.zeros((6, 4), np.float32)
    form = Texts(("<padding>", "<start>", "<rare>", "good"), 3, 1, 2, "good", length=4)
    mine = Servable(model, data_of(some), form)
    told = json.loads(json.dumps(mine.told()))
    assert not mine.difference(told)
    assert not replace(mine, form=replace(form, example="fine")).difference(told)
    assert replace(mine, form=replace(form, words=(*form.words[:3], "bad"))).difference(told)
    assert replace(mine, data=data_of(some[:, :3])).difference(told)
    assert replace(mine, data=data_of(some, ("ant", "bee", "cow"))).difference(told)


# Pictures


def file_of(picture: Image.Image, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    picture.save(out, kind)
    return out.getvalue()


def grey(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels[..., 0])


@pytest.fixture
def digits(tmp_path: Path) -> tuple[Served, keras.Model, np.ndarray]:
    """Pictures of 28 x 28 whose border is black, as MNIST's."""
    inputs = np.zeros((6, 28, 28, 1), np.uint8)
    inputs[:, 4:24, 4:24] = np.random.default_rng(0).integers(0, 256, (6, 20, 20, 1))
    model, data = classifier((28, 28, 1)), data_of(inputs)
    ready = served(model, data, Pictures(drawing=Drawing(20, "mass")), tmp_path)
    return ready, model, inputs


@pytest.mark.parametrize(
    "given",
    [
        lambda row: row,
        lambda row: row[..., 0],
        lambda row: row.tolist(),
        lambda row: file_of(grey(row)),
        lambda row: base64.b64encode(file_of(grey(row))).decode(),
        lambda row: "data:image/png;base64," + base64.b64encode(file_of(grey(row))).decode(),
        lambda row: file_of(grey(row).convert("RGB")),
        lambda row: file_of(grey(row).convert("RGBA")),
        lambda row: file_of(Image.fromarray(row[..., 0].astype(np.uint16) * 257)),
    ],
    ids=["array", "flat", "list", "file", "base64", "data-url", "rgb", "rgba", "16-bit"],
)
def test_a_picture_of_the_models_kind_is_taken_as_it_is(digits, given: Callable[[np.ndarray], Any]) -> None:
    ready, model, inputs = digits
    found = ready.predict(
        None, pd.DataFrame({"image": pd.Series([given(row) for row in inputs], dtype=object)})
    )
    np.testing.assert_allclose(
        found[[f"probability_{name}" for name in CLASSES]], model.predict(inputs, verbose=0), rtol=1e-5
    )


def read_picture(ready: Served, given: Any) -> np.ndarray:
    """What the model is given for a picture."""
    seen = []
    ready._model = SimpleNamespace(
        predict_on_batch=lambda rows: seen.append(rows) or np.zeros((len(rows), 3))
    )
    ready.predict(None, pd.DataFrame({"image": pd.Series([given], dtype=object)}))
    return seen[0][0]


def drawn(size: int, ink: str, paper: str) -> Image.Image:
    """A thick 7 in a corner of a sheet."""
    picture = Image.new("RGB", (size, size), paper)
    s = size // 10
    ImageDraw.Draw(picture).line([(s, s), (4 * s, s), (2 * s, 6 * s)], fill=ink, width=s)
    return picture


@pytest.mark.parametrize("size", [50, 280, 1000])
@pytest.mark.parametrize(("ink", "paper"), [("black", "white"), ("white", "black"), ("navy", "lightyellow")])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_drawing_of_any_size_and_colour_is_brought_into_the_frame(
    digits, size: int, ink: str, paper: str, kind: str
) -> None:
    ready, _, _ = digits
    pixels = read_picture(ready, file_of(drawn(size, ink, paper), kind))[..., 0].astype(float)
    assert pixels.shape == (28, 28)
    assert pixels.max() > 250
    rows, columns = (np.flatnonzero((pixels > 64).any(axis=axis)) for axis in (1, 0))
    # The longest side is 20 pixels, and a pixel more or less where a brim is half covered.
    assert abs(max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1 - 20) <= 1
    # The centre of mass is in the middle, to the pixel that it can be moved by.
    middle = [(np.indices(pixels.shape)[axis] * pixels).sum() / pixels.sum() for axis in (0, 1)]
    assert np.abs(np.array(middle) + 0.5 - 14).max() <= 0.51
    # Upright, and not mirrored: a 7 has its bar above, and its foot left of the bar's right end.
    assert pixels[:14].sum() > pixels[14:].sum()


@pytest.mark.parametrize(("size", "colour"), [((90, 60), 255), ((1, 1), 0), ((300, 1), 0), ((40, 40), 128)])
def test_a_sheet_with_nothing_on_it_is_refused(digits, size: tuple[int, int], colour: int) -> None:
    ready, _, _ = digits
    rows = pd.DataFrame({"image": [file_of(Image.new("L", size, colour))]})
    assert refused(ready, rows).startswith("row 0, image: nothing is drawn")


def test_a_thin_line_on_a_large_sheet_is_seen(digits) -> None:
    ready, _, _ = digits
    picture = Image.new("L", (3000, 3000), 255)
    ImageDraw.Draw(picture).line([(500, 500), (2000, 500), (1000, 2500)], fill=0, width=4)
    pixels = read_picture(ready, file_of(picture))[..., 0]
    assert pixels.max() > 250
    assert (pixels > 64).sum() >= 20


def test_white_ink_on_nothing_is_seen(digits) -> None:
    ready, _, _ = digits
    clear = Image.new("RGBA", (100, 100), (255, 255, 255, 0))
    ImageDraw.Draw(clear).line([(20, 20), (70, 20), (40, 90)], fill=(255, 255, 255, 255), width=9)
    dark = Image.new("L", (100, 100), 0)
    ImageDraw.Draw(dark).line([(20, 20), (70, 20), (40, 90)], fill=255, width=9)
    np.testing.assert_array_equal(read_picture(ready, file_of(clear)), read_picture(ready, file_of(dark)))


def test_floats_in_a_file_are_light_of_0_to_1(digits) -> None:
    ready, _, inputs = digits
    light = Image.fromarray(inputs[0, ..., 0].astype(np.float32) / 255)
    np.testing.assert_array_equal(read_picture(ready, file_of(light, "TIFF")), inputs[0])


def test_a_small_file_of_very_many_pixels_is_refused_unread(digits) -> None:
    ready, _, _ = digits
    rows = pd.DataFrame({"image": [file_of(Image.new("1", (9000, 9000)))]})
    assert "it has 9000 x 9000 pixels, 50,000,000 are the most" in refused(ready, rows)


@pytest.mark.parametrize("shape", [(1, 1), (1, 1, 1), (3, 1), (1, 5, 3)])
def test_pixels_with_a_side_of_one_are_a_picture(digits, shape: tuple[int, ...]) -> None:
    ready, _, _ = digits
    rows = pd.DataFrame({"image": pd.Series([np.zeros(shape)], dtype=object)})
    assert refused(ready, rows).startswith("row 0, image: nothing is drawn")


def test_a_transparent_picture_lies_on_white(digits) -> None:
    ready, _, _ = digits
    clear = Image.new("RGBA", (100, 100), (0, 0, 0, 0))
    clear.paste(drawn(100, "black", "white").convert("RGBA"), mask=drawn(100, "white", "black").convert("L"))
    on_white = read_picture(ready, file_of(drawn(100, "black", "white")))
    assert np.abs(read_picture(ready, file_of(clear)).astype(int) - on_white).mean() < 2


def test_files_are_brought_to_the_models_brightness_and_arrays_taken_as_they_are(tmp_path: Path) -> None:
    inputs = np.random.default_rng(0).integers(0, 17, (4, 8, 8, 1)).astype(np.uint8)
    inputs[:, [0, -1]], inputs[:, :, [0, -1]] = 0, 0
    model, data = classifier((8, 8, 1)), data_of(inputs)
    form = Pictures(white=16.0, drawing=Drawing(8, "box"))
    ready = served(model, data, form, tmp_path)
    example = Servable(model, data, form).example
    expected = model.predict(inputs[:3], verbose=0)
    for rows in (example, pd.DataFrame({"image": list(inputs[:3])})):
        found = ready.predict(None, rows)[[f"probability_{name}" for name in CLASSES]]
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert "pixels must be 0 to 16" in refused(ready, pd.DataFrame({"image": [inputs[0] + 1]}))


def test_pictures_of_two_cameras_are_resized_in_colour(tmp_path: Path) -> None:
    cameras = {name: keras.Input((6, 5, 3), dtype="uint8", name=name) for name in ("left", "right")}
    flat = [keras.layers.Flatten()(keras.layers.Rescaling(0.01)(part)) for part in cameras.values()]
    model = keras.Model(cameras, keras.layers.Dense(3, "softmax")(keras.layers.Concatenate()(flat)))
    model.compile("sgd", "sparse_categorical_crossentropy")
    rng = np.random.default_rng(0)
    rows = {name: rng.integers(0, 256, (3, 6, 5, 3)).astype(np.uint8) for name in cameras}
    ready = served(model, data_of(rows), Pictures(), tmp_path)
    files = {name: [file_of(Image.fromarray(one)) for one in part] for name, part in rows.items()}
    found = ready.predict(None, pd.DataFrame(files))
    np.testing.assert_allclose(found["probability_cat"], model.predict(rows, verbose=0)[:, 2], rtol=1e-5)
    red = Image.new("CMYK", (300, 200), (0, 255, 255, 0))
    files["left"][1] = file_of(red, "JPEG")
    assert len(ready.predict(None, pd.DataFrame(files))) == 3


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("no base64!", "the text must be a PNG or JPEG file as base64, but is none"),
        (base64.b64encode(b"no picture").decode(), "the picture cannot be read: it is in no known format"),
        (file_of(Image.new("L", (40, 40)))[:45], "the picture cannot be read: "),
        (b"", "the picture cannot be read: it is in no known format"),
        (None, "must be a PNG or JPEG file (as base64 in JSON), or pixels as"),
        ([[1, 2], [3]], "must be a PNG or JPEG file (as base64 in JSON), or pixels as"),
        ([[[1, 2, 3, 4]]], "must be a PNG or JPEG file (as base64 in JSON), or pixels as"),
        ([[300.0]], "pixels must be 0 to 255, but 300 to 300 are there"),
        ([[float("nan")]], "pixels must be 0 to 255, but nan to nan are there"),
        (
            (np.full((28, 28), 0.5)).tolist(),
            "pixels must be 0 to 255, but these are scaled to 0 to 1 already",
        ),
    ],
)
def test_what_is_no_picture_is_refused_with_its_row(digits, given: Any, why: str) -> None:
    ready, _, inputs = digits
    rows = pd.DataFrame({"image": pd.Series([inputs[0], given], dtype=object)})
    assert refused(ready, rows).startswith(f"row 1, image: {why}")
