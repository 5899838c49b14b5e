"""A picture as a model takes it: the same pixels in training and in use.

A saved model carries this file along, so it imports nothing of this project.
"""

import base64
import binascii
import io
from collections.abc import Mapping
from typing import Any

import numpy as np

# Brightness, of 0 to 1, from which a pixel belongs to a drawing.
_INK = 0.25
_LEAST_CONTRAST = 0.05

# Of the many that Pillow knows, as it runs Ghostscript on a stranger's PostScript.
_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
# Pixels of a picture at most, and of its shorter side before it is looked at.
_MOST_PIXELS = 50_000_000
_LARGE = 512


def cast(pixels: Any, dtype: str) -> Any:
    """Pixels in the type that the model takes; whole numbers are rounded to."""
    return (np.rint(pixels) if np.dtype(dtype).kind in "iu" else pixels).astype(dtype)


def picture(given: Any, form: Mapping[str, Any], one: Mapping[str, Any]) -> Any:
    """Pixels as the model takes them, (height, width, channels); ValueError for what is no picture.

    Of a file that holds several pictures it is the first. A grey picture is resized by Lanczos's filter, a
    coloured one by a bilinear one, to the shape, whatever its own was.

    given: a PNG or JPEG file's bytes, the same as base64 text (a data URL, too), or pixels in an array. form:
    its `white` and `drawing`, see `forms.Pictures`. one: the model's input, its `shape`.
    """
    from PIL import Image

    if isinstance(given, bytes | bytearray | str):
        read = opened(given)
        if read.size == (1, 1) and not form["drawing"]:
            raise ValueError("the picture has one pixel")
    else:
        pixels = _pixels(given)
        if pixels.shape == tuple(one["shape"]):
            return _in_range(pixels, form["white"])
        pixels = _in_range(pixels, 255.0)
        whole = np.rint(pixels).astype(np.uint8)
        read = Image.fromarray(whole[..., 0] if whole.shape[-1] == 1 else whole)
    height, width, channels = one["shape"]
    if channels == 1:
        small = flat(read, "L")
        # Before it takes eight bytes a pixel.
        small = small.reduce(max(1, min(small.size) // _LARGE))
        grey = np.asarray(small, dtype=np.float64) / 255.0
        if form["drawing"]:
            grey = _framed(grey, height, width, form["drawing"])
        elif grey.shape != (height, width):
            grey = _resized(grey, height, width)
        return grey[..., None] * form["white"]
    colours = flat(read, "RGB")
    if colours.size != (width, height):
        colours = colours.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(colours, dtype=np.float64) * (form["white"] / 255.0)


def head(file: Any) -> Any:
    """A file's picture whose pixels are still to be read, whatever the file is called.

    file: its path, or an open one. Raises what Pillow raises, UnidentifiedImageError for another format.
    """
    from PIL import Image

    return Image.open(file, formats=_FORMATS)


def opened(given: Any) -> Any:
    """A file's picture, turned as its camera was held; ValueError for what is no picture.

    given: its bytes, or the same as base64 text.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    if isinstance(given, str):
        text = given.partition(",")[2] if given.startswith("data:") else given
        try:
            given = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("the text must be a PNG or JPEG file as base64, but is none") from None
    try:
        picture = head(io.BytesIO(given))
        if picture.width * picture.height > _MOST_PIXELS:
            # A small file may hold gigabytes of one colour.
            raise ValueError(
                f"it has {picture.width} x {picture.height} pixels, {_MOST_PIXELS:,} are the most"
            )
        picture.load()
        if (picture.format, picture.mode) == ("PPM", "I"):
            # Pillow has brought it to 16 bits, whatever it had.
            picture = picture.convert("I;16")
        return ImageOps.exif_transpose(picture)
    except UnidentifiedImageError:
        raise ValueError("the picture cannot be read: it is in no known format") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"the picture cannot be read: {error}") from None


def _pixels(given: Any) -> Any:
    try:
        pixels = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        pixels = np.zeros(0)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[-1] not in (1, 3) or not pixels.size:
        raise ValueError(
            f"must be a PNG or JPEG file (as base64 in JSON), or pixels as (height, width),"
            f" (height, width, 1) or (height, width, 3), but is {_shown(given)}"
        )
    return pixels


def _in_range(pixels: Any, white: float) -> Any:
    # A comparison with NaN is false.
    if not (pixels.min() >= 0 and pixels.max() <= white):
        raise ValueError(f"pixels must be 0 to {white:g}, but {pixels.min():g} to {pixels.max():g} are there")
    if 0 < pixels.max() <= 1 and (pixels != np.round(pixels)).any():
        raise ValueError(f"pixels must be 0 to {white:g}, but these are scaled to 0 to 1 already")
    return pixels


def _shown(given: Any) -> str:
    shown = repr(given)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def flat(picture: Any, mode: str) -> Any:
    """The picture without transparency, on white, in 8 bits."""
    from PIL import Image

    if picture.mode.startswith("I"):
        # More than 8 bits a pixel, which Pillow would cut off instead of scaling.
        wide = np.asarray(picture, dtype=np.float64)
        # Where 32 are there, nothing says how many of them are used.
        white = 65535.0 if picture.mode != "I" or wide.max() > 255 else 255.0
        picture = Image.fromarray(np.clip(wide / white * 255, 0, 255).astype(np.uint8))
    if picture.mode == "F":
        # Floats, which Pillow would cut off, too.
        light = np.asarray(picture, dtype=np.float64)
        light = light * 255 if light.max() <= 1 else light
        picture = Image.fromarray(np.clip(np.rint(light), 0, 255).astype(np.uint8))
    if picture.mode in ("LA", "PA", "RGBA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        papers = (Image.new("RGBA", picture.size, paper) for paper in ("white", "black"))
        on_white, on_black = (Image.alpha_composite(paper, picture) for paper in papers)
        # White ink is not seen on white.
        picture = on_black if _is_even(on_white) else on_white
    return picture.convert(mode)


def _is_even(picture: Any) -> bool:
    low, high = picture.convert("L").getextrema()
    return bool(high - low < _LEAST_CONTRAST * 255)


def _resized(grey: Any, height: int, width: int) -> Any:
    from PIL import Image

    made = Image.fromarray(grey.astype(np.float32)).resize((width, height), Image.Resampling.LANCZOS)
    return np.clip(np.asarray(made, dtype=np.float64), 0.0, 1.0)


def _framed(grey: Any, height: int, width: int, drawing: Mapping[str, Any]) -> Any:
    """A drawing or scan, dark on light or light on dark, as pictures lay that the model has learned from."""
    border = np.concatenate([grey[0], grey[-1], grey[1:-1, 0], grey[1:-1, -1]])
    if grey.shape == (height, width) and np.median(border) < _LEAST_CONTRAST:
        # Of their kind already.
        return grey
    if np.median(border) > 0.5:
        grey, border = 1.0 - grey, 1.0 - border
    grey = np.clip(grey - np.median(border), 0.0, None)
    if grey.max() < _LEAST_CONTRAST:
        raise ValueError("nothing is drawn: all of it is as light as its border")
    grey = grey / grey.max()
    rows, columns = (np.flatnonzero((grey > _INK).any(axis=axis)) for axis in (1, 0))
    thing = grey[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = min(drawing["box"], height, width) / max(thing.shape)
    small = _resized(thing, *(max(1, round(side * scale)) for side in thing.shape))
    # A thin line fades where many pixels become one.
    small = small / small.max()
    if drawing["centre"] == "mass":
        middle = [float((np.indices(small.shape)[axis] * small).sum() / small.sum()) + 0.5 for axis in (0, 1)]
    else:
        middle = [side / 2 for side in small.shape]
    frame = np.zeros((height, width))
    top, left = (
        int(np.clip(round(whole / 2 - at), 0, whole - side))
        for whole, at, side in zip(frame.shape, middle, small.shape, strict=True)
    )
    frame[top : top + small.shape[0], left : left + small.shape[1]] = small
    return frame
