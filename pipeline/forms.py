"""What a person has in hand when a finished model is asked: the form of a task's raw rows.

A form is data alone. It is written beside the saved model, and `tracking/served.py`, which runs without this
project, makes the model's inputs of rows in that form.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Arrays:
    """The model's own inputs, as arrays.

    words: of inputs that hold word numbers, by their names ("" of the only input), how many there are.
    """

    words: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Columns:
    """Numbers in named columns, which are the last axis of the model's only input, in this order."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class Drawing:
    """How the model's pictures lie in their frame, where each is one thing, bright on black.

    box: pixels of the longest side of the thing. centre: what of it lies in the frame's middle, its `mass`
    (the mean place of its brightness) or its `box`.
    """

    box: int
    centre: Literal["mass", "box"]


@dataclass(frozen=True)
class Pictures:
    """Pictures in files or as arrays of pixels, one for each of the model's inputs.

    white: the brightest value of a pixel that the model knows; files are brought to 0 to `white`, arrays are
    taken as they are. drawing: how to bring drawings and scans to what the model has learned from; None for
    pictures that are only resized. column: the name of the only input's column.
    """

    white: float = 255.0
    drawing: Drawing | None = None
    column: str = "image"


@dataclass(frozen=True)
class Texts:
    """Texts of words, by numbers.

    words: each word by its number, marks first; a word that is not among them is number `rare`. start: the
    number that opens a text. length: of the sequence of the text's last words, with zeros in front; 0 for a
    vector with a 1 for each word that the text holds. example: a text, for whoever wants to try. column: its
    column's name. rule: what a word is, see `carried/words.py`.
    """

    words: tuple[str, ...]
    marks: int
    start: int
    rare: int
    example: str
    length: int = 0
    column: str = "text"
    rule: Literal["keras", "any"] = "keras"


@dataclass(frozen=True)
class Table:
    """Columns of a person's table, as `carried/encoding.py` reads them.

    rules: of the columns, JSON values each. example: a few rows, cells by column, for whoever wants to try.
    """

    rules: tuple[Mapping[str, Any], ...]
    example: tuple[Mapping[str, Any], ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns that are used."""
        return tuple(dict.fromkeys(str(rule["name"]) for rule in self.rules))


Form = Arrays | Columns | Table | Pictures | Texts


def described(form: Form) -> dict[str, Any]:
    """The form as JSON values: its fields, and its name in lower case as `kind`."""
    return {"kind": type(form).__name__.lower(), **asdict(form)}
