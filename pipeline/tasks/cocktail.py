"""Techniques of a cocktail as numbers, zero for off: mixup, label smoothing, class weights, skip connections.

A `Blend` layer holds the first three, and a `Cocktail` model reads them in its loss; a `Gate` lets a share of
a connection through. So lanes with and without a technique share a program. What such a model is saved as is
an ordinary model of Keras's: a blend is of training alone, and a gate is a `Rescaling`.
"""

from typing import Any

import keras

_ops = keras.ops


@keras.saving.register_keras_serializable("regatta")
class Blend(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Mixes each row with the one before it, in training.

    mixup: a row keeps a share of itself that is drawn anew for each from 1 - mixup to 1; 0 is off, at most 1.
    H. Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018, where the share has a beta
    distribution. label_smoothing: share of the target that is spread over all classes, C. Szegedy et al.,
    "Rethinking the Inception Architecture", CVPR 2016. balance: the power of a row's weight: 0 for none, 1
    where rows weigh as `sample_weight` says. scale: a factor of the loss of numbers.
    """

    def __init__(
        self,
        mixup: float = 0.0,
        label_smoothing: float = 0.0,
        balance: float = 0.0,
        scale: float = 1.0,
        **given: Any,
    ) -> None:
        super().__init__(**given)
        self.mixup, self.label_smoothing = float(mixup), float(label_smoothing)
        self.balance, self.scale = float(balance), float(scale)
        self.seed_generator = keras.random.SeedGenerator()
        # What the last traced call has drawn, for the loss of the same trace.
        self._drawn: list[Any] = []

    def call(self, inputs: Any, training: bool = False) -> Any:  # noqa: FBT001, FBT002  # Keras's own signature
        """inputs: (rows, features). In training a row's share is kept for `shares`."""
        if not training:
            return inputs
        rows = (_ops.shape(inputs)[0], 1)
        share = 1.0 - self.mixup * keras.random.uniform(rows, dtype=inputs.dtype, seed=self.seed_generator)
        object.__setattr__(self, "_drawn", [share])
        return share * inputs + (1.0 - share) * _ops.roll(inputs, 1, axis=0)

    def shares(self) -> Any:
        """What each row kept of itself in this trace's call, (rows,)."""
        (share,) = self._drawn
        object.__setattr__(self, "_drawn", [])
        return share[:, 0]

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "mixup": self.mixup,
            "label_smoothing": self.label_smoothing,
            "balance": self.balance,
            "scale": self.scale,
        }


@keras.saving.register_keras_serializable("regatta")
class Gate(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Lets a share of its inputs through: 1 for a connection, 0 for none."""

    def __init__(self, share: float = 1.0, **given: Any) -> None:
        super().__init__(**given)
        self.share = float(share)

    def call(self, inputs: Any) -> Any:
        return inputs * self.share

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "share": self.share}


class Cocktail(keras.Model):  # type: ignore[misc]  # Keras has no types
    """A model of the functional API with one `Blend` layer, whose numbers its training loss reads.

    It answers with probabilities of classes, for targets of class numbers, or with a number. In validation
    its loss is the one that it is compiled with. It is saved as a model of Keras's own, see `plain`.
    """

    all_in_layers = True
    """What it has beside a model of Keras's own is in its layers: equal layers make an equal one."""

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,  # noqa: FBT001, FBT002  # Keras's own signature
    ) -> Any:
        """The loss of Keras's own in validation; in training that of mixed rows, their weights to a power."""
        blend = next(layer for layer in self.layers if isinstance(layer, Blend))
        if not training or not blend._drawn:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        share = blend.shares()
        losses = _of_numbers if y_pred.shape[-1] == 1 else _of_classes
        (target,) = keras.tree.flatten(y)
        rows = losses(blend, _ops.reshape(target, (-1,)), y_pred)
        mixed = _weighted(rows(0), sample_weight, blend, 0) * share
        mixed = mixed + _weighted(rows(1), sample_weight, blend, 1) * (1.0 - share)
        return _ops.mean(mixed) + sum(self.losses)

    def save(self, filepath: Any, **given: Any) -> None:
        """Saves the model as it answers."""
        self.plain().save(filepath, **given)

    def plain(self) -> keras.Model:
        """The same layers without the `Blend`, and gates as Keras has them, as a model of Keras's own."""

        def kept(layer: keras.Layer) -> keras.Layer:
            if isinstance(layer, Gate):
                return keras.layers.Rescaling(layer.share, name=layer.name, dtype=layer.dtype_policy.name)
            if isinstance(layer, Blend):
                # By name: Keras writes no policy into an Identity's configuration.
                return keras.layers.Identity(name=layer.name, dtype=layer.dtype_policy.name)
            return layer

        bare = keras.Model(self.input, self.output, name=self.name)
        model = keras.models.clone_model(bare, clone_function=kept)
        model.compile(
            optimizer=self.optimizer,
            loss=self.loss,
            metrics=self._compile_metrics._user_metrics,
            weighted_metrics=self._compile_metrics._user_weighted_metrics,
        )
        return model


def _weighted(losses: Any, weights: Any, blend: Blend, back: int) -> Any:
    """Losses times the weights of the rows so far back, to the layer's power."""
    if weights is None:
        return losses
    weights = _ops.cast(_ops.reshape(weights, (-1,)), losses.dtype)
    return losses * _ops.power(_ops.roll(weights, back, axis=0), blend.balance)


def _of_classes(blend: Blend, labels: Any, answers: Any) -> Any:
    """The cross-entropy of each row with the target so many rows back, (rows,), smoothed."""
    classes = answers.shape[-1]
    logs = _ops.log(_ops.clip(answers, keras.config.epsilon(), 1.0 - keras.config.epsilon()))

    def rows(back: int) -> Any:
        target = _ops.one_hot(_ops.roll(_ops.cast(labels, "int32"), back, axis=0), classes, dtype=logs.dtype)
        target = target * (1.0 - blend.label_smoothing) + blend.label_smoothing / classes
        return -_ops.sum(target * logs, axis=-1)

    return rows


def _of_numbers(blend: Blend, targets: Any, answers: Any) -> Any:
    """The squared error of each row with the target so many rows back, (rows,), times the layer's scale."""
    answers = _ops.reshape(answers, (-1,))

    def rows(back: int) -> Any:
        return _ops.square(answers - _ops.roll(_ops.cast(targets, answers.dtype), back, axis=0)) * blend.scale

    return rows
