"""What a task is: rows, a model, and the settings that the model reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.forms import Arrays, Form
from pipeline.settings import Parameter
from pipeline.source import Source
from pipeline.values import Array, Data, Metric, Settings, Size, Split

if TYPE_CHECKING:
    # Which backend Keras runs on is not settled yet where tasks are only listed.
    import keras

    from pipeline.space import Space


OwnFit = Callable[[Settings, "keras.Model", Mapping[str, Any]], Mapping[str, float]]


Raw = Callable[[Split], Iterator[Any]]


def _arrays(data: Data) -> Form:
    return Arrays(data.words)


@dataclass(frozen=True)
class Task:
    """A task, named or made of what a person brings.

    parameters: every setting that `build` or the engine reads; a search space may name these and no others.
    metrics: what a compiled model measures besides the loss, by Keras's metric names.
    load: (size) -> rows. build: (settings, data) -> a compiled, ordinary Keras model with fresh weights; what
    it takes from `data` (shapes, classes, means) comes from the training rows alone. texts: inputs,
    (rows, ...) -> what each row says in words, where rows are texts; None where the words are not known.
    form: of the rows that a finished model is asked with; the model's own arrays by default.
    raw: (split) -> its rows in that form, in order, as tables of some rows each, read from the source again;
    a RunError where it is not what it was. None where the task has no such rows.
    space: name of its search-space file, where that is not the task's own. space_text: its search space,
    where it has no file. source: where its rows come from, where a person brings them. fit: a training of its
    own, which only the engine `fit` can run: (settings, model, what `model.fit` would be called with) -> what
    it measured beside what its callbacks saw. idle: parameters that make no difference to these rows, and are
    left out of every space.
    """

    name: str
    parameters: tuple[Parameter, ...]
    metrics: tuple[Metric, ...]
    load: Callable[[Size], Data]
    build: Callable[[Settings, Data], keras.Model]
    texts: Callable[[Array], list[str] | None] | None = None
    form: Callable[[Data], Form] = _arrays
    raw: Raw | None = None
    space: str = ""
    space_text: str = ""
    source: Source = field(default_factory=Source)
    fit: OwnFit | None = None
    idle: tuple[str, ...] = ()

    def read_space(self, given: str | None) -> Space:
        """The space of a file, or of what comes with the task.

        given: the file's path; None or empty for the task's own.

        Raises:
            UserError: with every fault of the file, one a line.
        """
        # A task is built, trained and measured where Optuna is not installed; only a search reads a space.
        from pipeline import space as spaces

        if self.space_text and not given:
            return self.parse_space(self.space_text, Path(self.name))
        file = Path(given) if given else spaces.file_of(self.space or self.name)
        return self.parse_space(spaces.text_of(file), file)

    def parse_space(self, text: str, file: Path) -> Space:
        """As `read_space`, of a text that was read before from `file`."""
        from pipeline import space as spaces

        return spaces.parse(text, file, self.parameters, self.metrics).without(self.idle)
