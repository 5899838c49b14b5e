"""Texts with a model's verdict, so that a person sees what it takes for what."""

from collections.abc import Callable, Sequence

import numpy as np

from pipeline.report.page import Section
from pipeline.values import Array, Split

_EACH = 2
_MOST_CHARACTERS = 600


def section(
    split: Split, probabilities: Array, classes: Sequence[str], texts: Callable[[Array], list[str] | None]
) -> Section | None:
    """The surest right rows of each class, the surest wrong ones, and the least sure; None without words.

    Args:
        split: the rows, of one input.
        probabilities: what the model answered to them, (rows, classes).
        classes: their names.
        texts: makes texts of inputs; None where the words are not known.
    """
    chosen = _chosen(split.labels, probabilities)
    words = texts(split.one_input[list(chosen)])
    if words is None:
        return None
    rows = [["", "the model says", "it is", "text"]]
    for (row, kind), text in zip(chosen.items(), words, strict=True):
        says = int(probabilities[row].argmax())
        verdict = f"{classes[says]} ({probabilities[row, says]:.1%})"
        shown = text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]} …"
        rows.append([kind, verdict, classes[int(split.labels[row])], shown])
    return Section(
        "What the champion reads", "Rows that it was not trained on, of those it was chosen by.", rows
    )


def _chosen(labels: Array, probabilities: Array) -> dict[int, str]:
    """Row numbers with what they are examples of."""
    of_label = np.take_along_axis(probabilities, labels[:, None].astype(np.int64), axis=1)[:, 0]
    says, sure = probabilities.argmax(axis=1), probabilities.max(axis=1)
    found: dict[int, str] = {}
    for label in np.unique(labels):
        right = np.flatnonzero((labels == label) & (says == label))
        found |= {
            int(row): "sure and right" for row in right[np.argsort(-of_label[right], kind="stable")][:_EACH]
        }
    wrong = np.flatnonzero(says != labels)
    found |= {
        int(row): "sure and wrong" for row in wrong[np.argsort(of_label[wrong], kind="stable")][: 2 * _EACH]
    }
    left = [row for row in np.argsort(sure, kind="stable") if int(row) not in found]
    return found | {int(row): "not sure" for row in left[:_EACH]}
