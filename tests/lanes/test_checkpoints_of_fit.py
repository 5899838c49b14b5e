"""Trials by `model.fit` go on from their checkpoints on JAX as they do on TensorFlow."""

from test_fit_checkpoints import (  # noqa: F401  # pytest finds them here
    _as_often_as_possible,
    data,
    folder,
    test_folds_that_were_over_are_not_trained_again,
    test_it_goes_on_as_if_nothing_had_been,
)
