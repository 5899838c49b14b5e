"""What a lane's first step may differ by from Keras's own: what moved weights explain, and nothing else."""

import numpy as np
import pytest

from pipeline.engines.lanes import selfcheck
from pipeline.values import Array

NAMES = ["kernel", "bias"]
BEFORE = [np.zeros((4, 4)), np.zeros(4)]
STEP = 0.1


def after(*apart: float) -> list[Array]:
    """Both variables after a step, one number of each so far from where Keras's own step leads."""
    found = []
    for start, distance in zip(BEFORE, apart, strict=True):
        value = start + STEP
        value.flat[0] += distance
        found.append(value)
    return found


def unexplained(ours: list[Array], *moved: list[Array]) -> str:
    return selfcheck.unexplained(NAMES, BEFORE, ours, after(0, 0), moved)


@pytest.mark.parametrize(("difference", "fine"), [(2e-5, True), (2e-3, False)])
def test_a_difference_is_explained_by_what_moved_weights_make(difference: float, fine: bool) -> None:
    assert (unexplained(after(difference, 0), after(1e-5, 0)) == "") is fine


def test_a_decision_that_fell_otherwise_is_explained_by_a_later_move_in_which_it_does() -> None:
    quiet, flipped = after(1e-7, 1e-7), after(0.02, 0.03)
    assert unexplained(after(0.02, 0.03), quiet, quiet) == ("kernel by 0.005, and rounding explains 0.0001")
    assert not unexplained(after(0.02, 0.03), quiet, flipped)


def test_each_variable_may_be_explained_by_a_move_of_its_own() -> None:
    assert not unexplained(after(0.02, 0.03), after(0.02, 0), after(0, 0.03))


def test_no_further_move_is_made_where_one_explains_all() -> None:
    def moves() -> object:
        yield after(1e-7, 1e-7)
        raise AssertionError("one was enough")

    assert not selfcheck.unexplained(NAMES, BEFORE, after(0, 0), after(0, 0), moves())


def test_what_is_no_number_is_never_explained() -> None:
    assert unexplained(after(float("nan"), 0), after(0, 0)).startswith("kernel by nan")
