"""Pictures of what models answer to the test rows: confusions, calibration, predicted against true."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from pipeline.evaluation.findings import Bin, Classified, Estimated

_COLOURS = {"baseline": "#9aa3ab", "champion": "#d9722e", "ensemble": "#1f6fb4"}
_OTHER = "#2f8f4e"
_LONGEST_NAME = 24


def confusion(found: Classified) -> Figure:
    """How many rows of each class are said to be of each; darker is a larger share of the row's class.

    Readable up to some 30 classes.
    """
    names = [_short(one.name) for one in found.by_class]
    classes = len(names)
    side = max(3.2, 0.42 * classes)
    figure = Figure(figsize=(side + 2.2, side + 1.2), layout="constrained")
    axes = figure.add_subplot()
    of_class = found.confusion.sum(axis=1, keepdims=True)
    shares = found.confusion / np.maximum(of_class, 1)
    axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    for (row, column), count in np.ndenumerate(found.confusion):
        if count:
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, f"{count}", ha="center", va="center", color=colour, fontsize=_size(count))
    # A name with dollar signs is no formula.
    axes.set_xticks(range(classes), names, parse_math=False)
    if max(map(len, names)) * classes > 30:
        axes.tick_params(axis="x", rotation=90)
    axes.set_yticks(range(classes), names, parse_math=False)
    axes.set(xlabel="predicted class", ylabel="class")
    return figure


def calibration(by_model: Mapping[str, Sequence[Bin]]) -> Figure:
    """Of rows that a model is so sure of, how many it has right; below, how many rows those are.

    On the diagonal a model is as sure as it may be; below it, too sure.
    """
    figure = Figure(figsize=(6.5, 6.5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle="--", label="as sure as right")
    for place, (model, bins) in enumerate(by_model.items()):
        look = {"color": _COLOURS.get(model, _OTHER), "label": model}
        filled = [one for one in bins if one.rows]
        # Smaller from model to model, as two that are the same would hide each other.
        size = 10 - 2.5 * place
        points = [one.confidence for one in filled], [one.accuracy for one in filled]
        above.plot(*points, "o-", markersize=size, **look)
        rows = sum(one.rows for one in bins)
        edges = [*(one.low for one in bins), bins[-1].high]
        below.stairs([one.rows / rows for one in bins], edges, **look)
    above.set(ylabel="share that is right", ylim=(-0.02, 1.02))
    below.set(xlabel="probability of the top class", ylabel="share of rows", xlim=(-0.02, 1.02))
    figure.legend(*above.get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False)
    return figure


def estimates(by_model: Mapping[str, Estimated]) -> Figure:
    """What each model predicts against what is true, a point a row; on the diagonal both are equal."""
    figure = Figure(figsize=(4.2 * len(by_model) + 0.6, 4.4), layout="constrained")
    columns = figure.subplots(1, len(by_model), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (model, found) in zip(columns, by_model.items(), strict=True):
        ends = [found.targets.min(), found.targets.max()]
        # Thousands of points would hide each other.
        alpha = float(np.clip(300 / len(found.targets), 0.05, 0.6))
        axes.plot(
            found.targets,
            found.answers,
            "o",
            color=_COLOURS.get(model, _OTHER),
            alpha=alpha,
            markeredgewidth=0,
        )
        axes.plot(ends, ends, color="black", linewidth=0.8, linestyle="--")
        axes.set(title=model, xlabel="true")
    columns[0].set_ylabel("predicted")
    return figure


def _size(count: int) -> float:
    """Of the letters of a count, so that it fits its cell."""
    return 9.0 if count < 1000 else 9.0 * 4 / (len(str(count)) + 1)


def _short(name: str) -> str:
    name = " ".join(name.split())
    half = _LONGEST_NAME // 2
    # Names that begin alike often end otherwise.
    return name if len(name) <= _LONGEST_NAME else f"{name[:half]}…{name[-half:]}"
