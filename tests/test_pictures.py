"""A person's pictures become arrays as a finished model is asked with them, or are left out and told."""

import base64
import io
import logging
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.carried import pictures as carried
from pipeline.datasets import pictures, splits
from pipeline.errors import UserError
from pipeline.source import Source
from pipeline.tasks import images
from pipeline.values import Data, Split


def _grey(number: int, size: tuple[int, int] = (8, 6)) -> Image.Image:
    """Pixels of a picture of its own, (6, 8)."""
    rng = np.random.default_rng(number)
    return Image.fromarray(rng.integers(0, 256, size[::-1]).astype(np.uint8))


def _folder(place: Path, *classes: str, each: int = 6, **saved: Any) -> Path:
    for number, name in enumerate(classes):
        (place / name).mkdir(parents=True)
        for picture in range(each):
            _grey(100 * number + picture).save(place / name / f"{picture}.png", **saved)
    return place


def _load(place: Path, size: str = "full", **more: str) -> Data:
    return pictures.load(Source(data=str(place), **more), size)  # type: ignore[arg-type]


def _all(data: Data) -> tuple[np.ndarray, np.ndarray]:
    parts = (data.train, data.validation, data.test.unseal())
    return np.concatenate([p.one_input for p in parts]), np.concatenate([p.labels for p in parts])


def test_class_folders_hold_pictures_at_any_depth(tmp_path: Path) -> None:
    place = _folder(tmp_path / "set", "cat", "dog, “old”\n<b>😀")
    deep = place / "cat" / "more" / "2024"
    deep.mkdir(parents=True)
    _grey(999).save(deep / "one.png")
    data = _load(place)
    assert data.classes == ("cat", "dog, “old”\n<b>😀")
    pixels, labels = _all(data)
    assert pixels.shape == (13, 6, 8, 1)
    assert pixels.dtype == np.uint8
    assert np.bincount(labels).tolist() == [7, 6]
    # Grey pictures of one size are there as they are stored.
    found = {picture.tobytes(): int(label) for picture, label in zip(pixels, labels, strict=True)}
    assert found[np.asarray(_grey(999)).tobytes()] == 0
    assert found[np.asarray(_grey(103)).tobytes()] == 1


def test_classes_that_are_numbers_are_in_their_order(tmp_path: Path) -> None:
    assert _load(_folder(tmp_path / "set", "10", "9", "0")).classes == ("0", "9", "10")


def test_a_table_names_pictures_and_labels(tmp_path: Path) -> None:
    _folder(tmp_path / "set", "x")
    rows = "\n".join(f"s{n // 2},x/{n}.png,{'ab'[n % 2]}" for n in range(6))
    file = tmp_path / "set" / "rows.csv"
    file.write_text(f"shot,where,kind\n{rows}\n,x/0.png,\n")
    data = _load(file, target="kind")
    pixels, labels = _all(data)
    assert data.classes == ("a", "b")
    found = {picture.tobytes(): int(label) for picture, label in zip(pixels, labels, strict=True)}
    assert found == {np.asarray(_grey(n)).tobytes(): n % 2 for n in range(6)}
    assert pictures.column(Source(data=str(file), target="kind")) == "where"


def test_a_file_that_is_named_again_is_there_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _folder(tmp_path / "set", "x")
    (tmp_path / "set" / "link.png").symlink_to(tmp_path / "set" / "x" / "0.png")
    (tmp_path / "set" / "hard.png").hardlink_to(tmp_path / "set" / "x" / "1.png")
    rows = "\n".join(f"{'' if n % 4 else 'x/../'}x/{n % 6}.png,{'ab'[n % 2]},{n % 6}" for n in range(60))
    (tmp_path / "set" / "rows.csv").write_text(f"file,kind,shot\n{rows}\nlink.png,a,7\nhard.png,b,7\n")
    for more in ({}, {"group": "shot"}):
        caplog.clear()
        pixels, labels = _all(_load(tmp_path / "set" / "rows.csv", target="kind", **more))
        assert len({picture.tobytes() for picture in pixels}) == len(labels) == 6
        assert "6 pictures read, 1 left out:\n  56 of a file that is there before" in caplog.text


def test_a_file_with_two_labels_is_refused(tmp_path: Path) -> None:
    place = _folder(tmp_path / "set", "x", "y")
    text = "file,kind\nx/0.png,a\nx/1.png,b\nx/0.png,a\nx/./0.png,b\n"
    (tmp_path / "set" / "rows.csv").write_text(text)
    with pytest.raises(UserError) as caught:
        _load(tmp_path / "set" / "rows.csv", target="kind")
    assert str(caught.value).endswith("two: row 1, 'x/0.png' is 'a', and row 4, 'x/./0.png' is 'b'")
    (place / "rows.csv").unlink()
    (place / "y" / "same.png").symlink_to(place / "x" / "0.png")
    with pytest.raises(UserError, match=r"two: x/0\.png is 'x', and y/same\.png is 'y'$"):
        _load(place)
    (place / "y" / "same.png").rename(place / "x" / "same.png")
    assert len(_all(_load(place))[1]) == 12


def test_groups_stay_together(tmp_path: Path) -> None:
    _folder(tmp_path / "set", "x", each=20)
    rows = "\n".join(f"x/{n}.png,{'ab'[n % 2]},shot {n // 4}" for n in range(20))
    (tmp_path / "set" / "rows.csv").write_text(f"file,kind,shot\n{rows}\n")
    data = _load(tmp_path / "set" / "rows.csv", target="kind", group="shot")
    parts = [set(part.groups) for part in (data.train, data.validation, data.test.unseal())]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 5


@pytest.mark.parametrize(
    ("sizes", "size", "shape"),
    [
        ([(8, 6)] * 4, "full", (6, 8, 1)),
        # Medians of the widths and of the heights.
        ([(10, 10), (20, 12), (30, 14)], "full", (12, 20, 1)),
        ([(640, 320)], "full", (32, 64, 1)),
        ([(640, 320)], "small", (16, 32, 1)),
        ([(1000, 2)], "full", (1, 64, 1)),
    ],
)
def test_sizes_are_recognised(
    tmp_path: Path, sizes: list[tuple[int, int]], size: str, shape: tuple[int, ...]
) -> None:
    for kind in ("a", "b"):
        (tmp_path / kind).mkdir()
        for number in range(6):
            _grey(number, sizes[number % len(sizes)]).save(tmp_path / kind / f"{number}.png")
    assert _load(tmp_path, size).train.one_input.shape[1:] == shape


def test_one_picture_in_colour_makes_all_coloured(tmp_path: Path) -> None:
    place = _folder(tmp_path / "set", "a", "b")
    # Grey in three channels is grey.
    _grey(1).convert("RGB").save(place / "a" / "0.png")
    _grey(1).convert("P").save(place / "a" / "1.png")
    assert _load(place).train.one_input.shape[1:] == (6, 8, 1)
    red = _grey(1).convert("RGB")
    red.putpixel((0, 0), (255, 0, 0))
    red.save(place / "b" / "0.png")
    assert _load(place).train.one_input.shape[1:] == (6, 8, 3)


def _deep_png(pixels: np.ndarray) -> bytes:
    """A grey PNG of 16 bits a pixel."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    height, width = pixels.shape
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(kind, content)
        for kind, content in ((b"IHDR", head), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    )


def test_every_kind_of_file_is_brought_to_eight_bits(tmp_path: Path) -> None:
    place = _folder(tmp_path / "set", "a", "b")
    pixels = np.asarray(_grey(7))
    (place / "a" / "deep.png").write_bytes(_deep_png(pixels.astype(np.uint16) * 257))
    turned = Image.Exif()
    # Held upright, and stored on its side.
    turned[0x0112] = 6
    Image.fromarray(np.rot90(np.asarray(_grey(8)))).save(place / "a" / "turned.png", exif=turned)
    clear = Image.merge("LA", (_grey(9), Image.new("L", (8, 6), 255)))
    clear.save(place / "b" / "alpha.png")
    moving = [_grey(10), _grey(11)]
    moving[0].save(place / "b" / "moving.gif", save_all=True, append_images=moving[1:])
    found = {picture.tobytes() for picture in _all(_load(place))[0]}
    for number in (7, 8, 9, 10):
        assert np.asarray(_grey(number)).tobytes() in found, number
    assert np.asarray(_grey(11)).tobytes() not in found


def test_four_inks_are_brought_to_three_colours(tmp_path: Path) -> None:
    place = _folder(tmp_path / "set", "a", "b")
    Image.new("CMYK", (8, 6), (0, 255, 255, 0)).save(place / "a" / "red.tif")
    found = {picture.tobytes() for picture in _all(_load(place))[0]}
    assert np.full((6, 8, 3), (255, 0, 0), np.uint8).tobytes() in found


@pytest.mark.parametrize("size", [(8, 6), (30, 17), (5, 5)])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "CMYK"])
def test_training_and_serving_see_the_same_pixels(tmp_path: Path, size: tuple[int, int], mode: str) -> None:
    place = _folder(tmp_path / "set", "a", "b", each=9)
    colours = Image.fromarray(np.random.default_rng(3).integers(0, 256, (*size[::-1], 3)).astype(np.uint8))
    name = "own.tif" if mode == "CMYK" else "own.png"
    colours.convert(mode).save(place / "a" / name)
    if mode == "L":
        assert _load(place).train.one_input.shape[-1] == 1
    pixels, _ = _all(_load(place))
    form = images.task(Source(data=str(place))).form(_load(place))
    assert vars(form) == {**vars(form), **pictures.FORM}
    content = (place / "a" / name).read_bytes()
    for given in (content, base64.b64encode(content).decode()):
        served = carried.cast(carried.picture(given, vars(form), {"shape": list(pixels.shape[1:])}), "uint8")
        assert served.tobytes() in {picture.tobytes() for picture in pixels}


def test_what_cannot_be_read_is_left_out_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = _folder(tmp_path / "set", "a", "b", each=8)
    whole = io.BytesIO()
    _grey(1, (64, 64)).save(whole, "PNG")
    (place / "a" / "cut.png").write_bytes(whole.getvalue()[:2000])
    (place / "a" / "empty.png").write_bytes(b"")
    (place / "b" / "words.png").write_text("no picture")
    Image.new("L", (1, 1)).save(place / "b" / "point.png")
    (place / "b" / "gone.png").symlink_to(place / "nowhere.png")
    (place / "readme.txt").write_text("no class")
    (place / "b" / ".hidden").write_text("not told")
    (place / "nothing").mkdir()
    with caplog.at_level(logging.WARNING):
        pixels, _ = _all(_load(place))
    assert len(pixels) == 16
    (record,) = caplog.records
    told = record.getMessage()
    assert f"data: {place}: 16 pictures read, 7 left out:" in told
    for name, why in (
        ("a/cut.png", "cannot be read"),
        ("a/empty.png", "in no known format"),
        ("b/words.png", "in no known format"),
        ("b/point.png", "has one pixel"),
        ("b/gone.png", "No such file"),
        ("readme.txt", "in no class's folder"),
        ("nothing", "holds no file"),
    ):
        (line,) = (line for line in told.splitlines() if line.strip().startswith(f"{name}:"))
        assert why in line


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_a_dark_picture_of_16_bits_stays_dark(kind: str) -> None:
    form, one = {"white": 255.0, "drawing": None}, {"shape": (4, 4, 1)}
    # Of 65535, in whole 255ths.
    for light, found in ((200, 0.0), (514, 2.0), (65535, 255.0)):
        file = io.BytesIO()
        Image.fromarray(np.full((4, 4), light, np.uint16)).save(file, kind)
        assert np.unique(carried.picture(file.getvalue(), form, one)).tolist() == [found], light


def test_a_picture_of_32_bits_is_read_as_its_brightest_pixel_says() -> None:
    for brightest, found in ((200, 200), (65535, 255)):
        pixels = np.array([[0, brightest]], np.int32)
        assert np.asarray(carried.flat(Image.fromarray(pixels), "L")).tolist() == [[0, found]]


def test_postscript_runs_no_ghostscript(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    run = tmp_path / "run"
    (programs / "gs").write_text(f"#!/bin/sh\necho run >> {run}\nexit 1\n")
    (programs / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    # What it has found out before; it would look for the program again.
    for name in ("gs_binary", "gs_windows_binary"):
        monkeypatch.setattr(f"PIL.EpsImagePlugin.{name}", None)
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\n(hi) show\n%%EOF\n"
    form, one = {"white": 255.0, "drawing": None}, {"shape": (8, 8, 1)}
    for given in (script, base64.b64encode(script).decode()):
        with pytest.raises(ValueError, match=r"^the picture cannot be read: it is in no known format$"):
            carried.picture(given, form, one)
    place = _folder(tmp_path / "set", "a", "b")
    (place / "a" / "script.png").write_bytes(script)
    pixels, _ = _all(_load(place))
    assert len(pixels) == 12
    assert "a/script.png: the picture cannot be read: it is in no known format" in caplog.text
    assert not run.exists()


def test_pictures_are_opened_through_one_door() -> None:
    sources = Path(carried.__file__).parent.parent.rglob("*.py")
    doors = [line for file in sources for line in file.read_text().splitlines() if "Image.open(" in line]
    assert doors == ["    return Image.open(file, formats=_FORMATS)"]


def test_only_ten_are_listed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = _folder(tmp_path / "set", "a", "b")
    for number in range(13):
        (place / "a" / f"bad{number}.png").write_bytes(b"")
    _load(place)
    lines = caplog.records[0].getMessage().splitlines()
    assert "13 left out" in lines[0]
    assert len(lines) == 12
    assert lines[-1].strip() == "and 3 more"


@pytest.mark.parametrize(
    ("made", "fault"),
    [
        ({}, "must hold a folder for each class, but holds no folder"),
        ({"a/0.png": True, "a/1.png": True}, "files in at least two class folders, but has 'a'"),
        ({"a/x.png": False, "b/x.png": False}, "but 'a' has 0, 'b' has 0"),
        (
            {"a/0.png": True, "a/1.png": True, "b/0.png": True},
            "at least two pictures that can be read, but 'b' has 1",
        ),
        ({f"{k}/{n}.png": True for k in "ab" for n in range(3)}, ""),
    ],
)
def test_too_few_pictures_are_one_error(tmp_path: Path, made: dict[str, bool], fault: str) -> None:
    for name, readable in made.items():
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        _grey(1).save(file) if readable else file.write_bytes(b"x")
    if not fault:
        # Three of each class can be split.
        assert _load(tmp_path).train.rows >= 2
        return
    with pytest.raises(UserError) as caught:
        _load(tmp_path)
    assert fault in str(caught.value)
    assert str(caught.value).startswith(f"data: {tmp_path}")


@pytest.mark.parametrize(
    ("text", "more", "fault"),
    [
        ("file,kind\nx/0.png,a\nx/1.png,b\n", {}, "target: must name a column of"),
        ("file,kind\nx/0.png,a\n", {"target": "label"}, "has no column 'label'; its columns are file, kind"),
        ("about,kind\nx,a\ny,b\nz,a\n,b\n", {"target": "kind"}, "must have a column of paths to pictures"),
        ("file,kind\n../0.png,a\nx/1.png,a\n", {"target": "kind"}, "must have at least two different"),
        (
            "file,kind\nx/0.png,a\n../0.png,a\nx/1.png,b\nx/2.png,b\n",
            {"target": "kind"},
            "row 2: '../0.png' leads out of the file's folder",
        ),
        (
            "file,kind\n/etc/passwd,a\nx/0.png,a\nx/1.png,b\nx/2.png,b\n",
            {"target": "kind"},
            "row 1: '/etc/passwd' leads out of the file's folder",
        ),
        (
            "file,kind\nx/7.png,a\nx/0.png,a\nx/1.png,b\nx/2.png,b\n",
            {"target": "kind"},
            "but 'a' has 1",
        ),
    ],
)
def test_a_table_that_cannot_be_used_is_one_error(
    tmp_path: Path, text: str, more: dict[str, str], fault: str
) -> None:
    _folder(tmp_path / "set", "x", each=3)
    (tmp_path / "set" / "rows.csv").write_text(text)
    with pytest.raises(UserError) as caught:
        _load(tmp_path / "set" / "rows.csv", **more)
    assert fault in str(caught.value)


def test_a_path_with_a_zero_byte_is_one_error(tmp_path: Path) -> None:
    _folder(tmp_path / "set", "x", each=3)
    file = tmp_path / "set" / "rows.parquet"
    pd.DataFrame({"file": ["x/0.png", "x/1\0.png"] * 2, "kind": ["a", "a", "b", "b"]}).to_parquet(file)
    with pytest.raises(UserError, match=r"rows.parquet: row 2: 'x/1\\x00.png' is no path"):
        _load(file, target="kind")


def test_a_folder_has_no_columns(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^target: is a column of a CSV of paths, but data is the folder"):
        _load(_folder(tmp_path / "set", "a", "b"), target="a")


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^data: .*none: there is no such file or folder$"):
        _load(tmp_path / "none")


def test_more_than_the_machine_holds_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = _folder(tmp_path / "set", "a", "b")
    monkeypatch.setattr(pictures.os, "sysconf", lambda _: 10)
    with pytest.raises(UserError, match=r"12 pictures of 6 x 8 pixels need 0.0 GiB, but the machine has 0.0"):
        _load(place)


# Models


def test_the_space_names_what_the_models_read() -> None:
    space = images.task(Source(data=".")).read_space(None)
    assert space.objective.metric == "val_log_loss"
    assert {"network", "translation"} <= space.searched.keys()


@pytest.mark.parametrize("network", ["residual", "separable"])
@pytest.mark.parametrize("shape", [(1, 3, 1), (8, 8, 1), (33, 64, 3)])
def test_models_take_pictures_of_any_size(network: str, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    rows = Split(rng.integers(0, 256, (6, *shape)).astype(np.uint8), np.arange(6, dtype=np.int32) % 2)
    data = splits.data("images", "made up", ("a", "b"), (rows, rows, rows))
    made = images.task(Source(data="."))
    own = {"network": network, "filters": 2, "flip": True, "translation": 0.1, "rotation": 0.1, "zoom": 0.1}
    model = made.build({parameter.name: parameter.default for parameter in made.parameters} | own, data)
    assert model.predict(rows.inputs, verbose=0).shape == (6, 2)
    # Without training, nothing is drawn.
    assert np.array_equal(*(model(rows.inputs, training=False) for _ in range(2)))
    drawn = [np.asarray(model(rows.inputs, training=True)) for _ in range(2)]
    assert not np.array_equal(*drawn)
