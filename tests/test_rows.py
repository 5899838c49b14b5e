"""Row orders: each is a permutation that follows from seed, program and epoch alone."""

import keras
import numpy as np
import pytest

from pipeline.engines import rows
from pipeline.values import Array, Split

SEED, PROGRAM, EPOCH, ROWS = 5, 2, 7, 1_000
MODEL = keras.Sequential([keras.Input(()), keras.layers.Identity()])


def order(seed: int = SEED, program: int = PROGRAM, epoch: int = EPOCH) -> Array:
    return rows.order(seed, program, epoch, ROWS, shuffle=True)


def test_an_order_is_a_permutation_of_the_row_numbers() -> None:
    assert order().dtype == np.int32
    np.testing.assert_array_equal(np.sort(order()), np.arange(ROWS))


def test_an_order_is_shuffled() -> None:
    # Of a random permutation, one row in ROWS stays in its place on average: more than 8 in one of 10^6.
    assert np.count_nonzero(order() == np.arange(ROWS)) <= 8


def test_an_order_is_the_same_on_every_call_whatever_else_is_random() -> None:
    first = order()
    np.random.seed(0)
    np.testing.assert_array_equal(order(), first)


@pytest.mark.parametrize(
    "other", [{"seed": SEED + 1}, {"program": PROGRAM + 1}, {"epoch": EPOCH + 1}, {"seed": 2, "program": 5}]
)
def test_seed_program_and_epoch_each_give_another_order(other: dict[str, int]) -> None:
    # Two random permutations agree in one place on average: in more than 8 once in 10^6.
    assert np.count_nonzero(order(**other) == order()) <= 8


def test_a_program_and_an_epoch_of_zero_give_orders_of_their_own() -> None:
    orders = {order(SEED, program, epoch).tobytes() for program in range(3) for epoch in range(3)}
    assert len(orders) == 9


@pytest.mark.parametrize("epoch", [0, 1])
def test_without_shuffle_the_rows_stay_as_they_are(epoch: int) -> None:
    kept = rows.order(SEED, PROGRAM, epoch, 5, shuffle=False)
    assert kept.dtype == np.int32
    np.testing.assert_array_equal(kept, [0, 1, 2, 3, 4])


def test_an_order_stays_what_it_is() -> None:
    # Studies count on it: another order here makes their trials unrepeatable.
    assert rows.order(0, 0, 0, 8, shuffle=True).tolist() == [7, 0, 1, 6, 5, 2, 3, 4]
    assert rows.order(2**32 - 1, 3, 41, 8, shuffle=True).tolist() == [4, 1, 5, 0, 3, 2, 6, 7]


def test_batches_are_the_rows_of_the_epoch_that_was_turned_to() -> None:
    split = Split(np.arange(7), np.arange(7) * 10, weights=np.arange(7.0))
    batches = rows.Batches(split, MODEL, 3, lambda epoch: np.roll(np.arange(7), epoch))
    turning = batches.turning()
    for epoch in range(3):
        turning.on_epoch_begin(epoch)
        # As Keras calls these too often, or not at all, they change nothing.
        batches.on_epoch_begin()
        batches.on_epoch_end()
        inputs, targets, weights = zip(*(batches[index] for index in range(len(batches))), strict=True)
        assert [len(part) for part in inputs] == [3, 3, 1]
        np.testing.assert_array_equal(np.concatenate(inputs), np.roll(np.arange(7), epoch))
        np.testing.assert_array_equal(np.concatenate(targets), np.roll(np.arange(7), epoch) * 10)
        np.testing.assert_array_equal(np.concatenate(weights), np.roll(np.arange(7.0), epoch))


def test_batches_have_no_weights_where_the_rows_have_none() -> None:
    (batch,) = rows.Batches(Split(np.arange(4), np.arange(4)), MODEL, 4, lambda epoch: np.arange(4))
    assert len(batch) == 2


def test_batches_are_as_wide_as_keras_makes_arrays() -> None:
    split = Split({"wide": np.ones((4, 2)), "bytes": np.ones(4, np.uint8)}, np.zeros(4, np.int64))
    inputs, targets = rows.Batches(split, MODEL, 4, lambda epoch: np.arange(4))[0]
    assert {name: array.dtype for name, array in inputs.items()} == {"wide": np.float32, "bytes": np.uint8}
    assert targets.dtype == np.int64


def named_targets(outputs: type) -> keras.Model:
    answers = [keras.layers.Dense(1, name=name) for name in ("b", "a")]
    source = keras.Input((1,))
    first, second = (layer(source) for layer in answers)
    forms = {dict: {"b": first, "a": second}, list: [first, second], keras.KerasTensor: first}
    return keras.Model(source, forms[outputs])


def test_named_targets_go_to_keras_in_the_form_of_the_outputs() -> None:
    a, b = np.zeros(4), np.ones(4)
    both = Split(np.arange(4), {"a": a, "b": b})
    assert rows.for_keras(both, named_targets(dict))[1] == {"a": a, "b": b}
    assert [part is b for part in rows.for_keras(both, named_targets(list))[1]] == [True, False]
    one = Split(np.arange(4), {"b": b})
    assert rows.for_keras(one, named_targets(keras.KerasTensor))[1] is b
    # Keras knows what to do with an output that no target is for.
    assert rows.for_keras(one, named_targets(list))[1] == {"b": b}
