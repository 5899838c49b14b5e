"""The twin of a Keras model: equal layers whose lane numbers are bound while its functions are traced.

One twin serves a program. Its own numbers and weights are never used: each lane brings its own.
"""

import re
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import keras
import numpy as np

from pipeline.engines import precision, schedules
from pipeline.engines.lanes import lowering, noise, numbers, signature, tables
from pipeline.engines.lanes.refusal import Refusal, in_short
from pipeline.seeds import derived
from pipeline.values import Array, Settings

Batch = tuple[Any, Any, Any]
"""Inputs, targets and row weights (or None), as Keras's train_step takes them."""


class Values(NamedTuple):
    """What a lane starts with, or ends with: one array for each variable of the twin, in its order.

    numbers: (slots + schedules.SIZE,), the lane numbers and the learning rate's plan. tables: the arrays of
    `tables.of_model`.
    """

    trainable: list[Array]
    non_trainable: list[Array]
    optimizer: list[Array]
    numbers: Array
    tables: list[Array]


class Twin:
    """The twin of a compiled, built model.

    Args:
        plain: the model; it is not changed.
        batch: a few rows as the program will see them, for Keras to build losses and metrics by.
        batch_rows: how many rows a step will see, to choose its forms by.

    Raises:
        Refusal: Keras cannot make an equal model from the configuration of this one.
    """

    def __init__(self, plain: keras.Model, batch: Batch, batch_rows: int = 32) -> None:
        try:
            self.model = _clone(plain)
            self.model._symbolic_build(data_batch=batch)
            signature.check_equal(self.model, plain)
        except Refusal:
            raise
        except Exception as error:
            raise Refusal(f"no equal model can be made from its configuration: {in_short(error)}") from error
        noise.install(self.model)
        lowering.install(self.model, batch_rows=batch_rows)
        _install_clipping(self.model.optimizer)
        self.slots = numbers.slots(self.model)
        self._found_places: dict[int, list[int]] = {}
        # Held while one of its functions is traced: only one lane at a time can lend it its numbers.
        self.lock = threading.RLock()

    def values(
        self,
        plain: keras.Model,
        batch: Batch,
        seed: int,
        settings: Settings | None = None,
        epochs: int = 1,
        exactly: int = 0,
    ) -> Values:
        """What the lane of another model of the same signature starts with.

        Args:
            plain: the model.
            batch: a few rows.
            seed: drives what the plain model has no seed for, such as a dropout whose rate is zero.
            settings: of the learning rate's plan; without them there is none.
            epochs: of the training, at most.
            exactly: how many epochs it has, see `Candidate.epochs`.

        Raises:
            Refusal: the models differ after all.
        """
        _build_losses(plain, batch)
        slots = numbers.slots(plain)
        if [slot.name for slot in slots] != [slot.name for slot in self.slots]:
            raise Refusal("its lane numbers are not those of the first model of its signature")
        of_plain = self._paired(plain)
        fresh = iter(range(len(self.model.non_trainable_variables)))

        def value(variable: keras.Variable) -> Array:
            if id(variable) in of_plain:
                return np.asarray(of_plain[id(variable)].value)
            number = next(fresh)
            return np.asarray([derived(seed, number), 0], dtype=variable.dtype)

        return Values(
            [value(variable) for variable in self.model.trainable_variables],
            [value(variable) for variable in self.model.non_trainable_variables],
            [np.asarray(variable.value) for variable in _lane_optimizer(plain).variables],
            np.concatenate(
                [
                    numbers.read(slots, keras.config.floatx()),
                    schedules.plan(settings or {}, float(plain.optimizer.learning_rate), epochs, exactly),
                ],
                dtype=keras.config.floatx(),
            ),
            tables.of_model(plain),
        )

    def logged(self) -> list[str]:
        """The names that an epoch of it logs."""
        names = list(self.model.get_metrics_result())
        return [*names, *(f"val_{name}" for name in names), "learning_rate"]

    def write_back(self, values: Values, plain: keras.Model) -> None:
        """Puts a lane's values into the plain model that it came from; of its optimiser, what both have."""
        for value, variable in self._values_of(values, plain):
            variable.assign(value)
        places = self._places(plain)
        for variable, place in zip(plain.optimizer.variables, places, strict=True):
            variable.assign(values.optimizer[place])

    def to_plain(self, values: Values, plain: keras.Model) -> tuple[list[Array], list[Array], list[Array]]:
        """A lane's values as the plain model's variables: trainable, non-trainable, optimiser's."""
        by_plain = {id(its): mine for mine, its in self._values_of(values, plain)}
        places = self._places(plain)
        return (
            [by_plain[id(variable)] for variable in plain.trainable_variables],
            [by_plain[id(variable)] for variable in plain.non_trainable_variables],
            [values.optimizer[place] for place in places],
        )

    def from_plain(self, after: Any, values: Values, plain: keras.Model) -> Values:
        """The plain model's variables after a step, in the twin's order; `values` where it has none."""
        trainable, non_trainable, optimizer, _ = after
        theirs = {
            id(variable): value for variable, value in zip(plain.trainable_variables, trainable, strict=True)
        }
        theirs |= {
            id(variable): value
            for variable, value in zip(plain.non_trainable_variables, non_trainable, strict=True)
        }
        of_plain = self._paired(plain)
        of_optimizer = list(values.optimizer)
        for place, array in zip(self._places(plain), optimizer, strict=True):
            of_optimizer[place] = array

        def value(variable: keras.Variable, own: Array) -> Array:
            return theirs[id(of_plain[id(variable)])] if id(variable) in of_plain else own

        return Values(
            list(map(value, self.model.trainable_variables, values.trainable)),
            list(map(value, self.model.non_trainable_variables, values.non_trainable)),
            of_optimizer,
            values.numbers,
            values.tables,
        )

    def _values_of(self, values: Values, plain: keras.Model) -> list[tuple[Array, keras.Variable]]:
        of_plain = self._paired(plain)
        ours = [*self.model.trainable_variables, *self.model.non_trainable_variables]
        mine = [*values.trainable, *values.non_trainable]
        return [
            (value, of_plain[id(variable)])
            for variable, value in zip(ours, mine, strict=True)
            if id(variable) in of_plain
        ]

    def _places(self, plain: keras.Model) -> list[int]:
        """Where the twin's optimiser has each variable of the plain model's, which is built for it."""
        plain.optimizer.build(plain.trainable_variables)
        count = len(plain.optimizer.variables)
        if count not in self._found_places:
            # All models of a signature have the same, but one without momentum may have fewer.
            ours = {name: place for place, name in enumerate(_named(_lane_optimizer(plain)))}
            self._found_places[count] = [ours[name] for name in _named(plain.optimizer)]
        return self._found_places[count]

    def _paired(self, plain: keras.Model) -> dict[int, keras.Variable]:
        """By the identity of a twin's variable, the plain model's; seeds of the twin alone are not in it."""
        found: dict[int, keras.Variable] = {}
        ours, theirs = (model._flatten_layers(include_self=False) for model in (self.model, plain))
        for mine, its in zip(ours, theirs, strict=True):
            pairs = [
                *zip(mine._trainable_variables, its._trainable_variables, strict=True),
                *zip(mine._non_trainable_variables, its._non_trainable_variables, strict=True),
            ]
            if len(mine._seed_generators) == len(its._seed_generators):
                seeds = zip(mine._seed_generators, its._seed_generators, strict=True)
                pairs += [(one.state, other.state) for one, other in seeds]
            found |= {id(one): other for one, other in pairs}
        return found


def with_large_numbers(plain: keras.Model) -> keras.Model:
    """An equal model whose lane numbers are such that each changes a step, with its own initial weights."""
    return _clone(plain, numbers.large)


def widened(plain: keras.Model) -> keras.Model:
    """An equal model whose layers compute with as many bits as their variables have; weights of its own."""
    return _clone(plain, float, wide=True)


def _clone(
    plain: keras.Model, other: Callable[[float], float] = numbers.other, *, wide: bool = False
) -> keras.Model:
    clone_layer = partial(_clone_layer, other=other, wide=wide)
    model = keras.models.clone_model(plain, clone_function=clone_layer, recursive=True)
    tables.copy(plain, model)
    config = keras.saving.deserialize_keras_object({**plain.get_compile_config(), "optimizer": None})
    model.compile(**{**config, "optimizer": _clone_optimizer(plain.optimizer)})
    model.optimizer.build(model.trainable_variables)
    return model


def _clone_layer(layer: keras.Layer, other: Callable[[float], float], *, wide: bool) -> keras.Layer:
    """An equal layer with other numbers, its rules likewise; weights and seeds of its own."""
    config = precision.widened(layer.get_config()) if wide else layer.get_config()
    config.update({name: other(config[name]) for name in numbers.names_of(layer)})
    if isinstance(layer, keras.layers.Wrapper):
        # Keras gives a dropout of rate zero nothing to draw from.
        inner = config["layer"]["config"]
        inner.update({name: other(inner[name]) for name in numbers.names_of(layer.layer)})
    made = type(layer).from_config(config)
    for part, rule in numbers.rules_of(layer):
        if getattr(made, part, None) is not None:
            setattr(made, part, _clone_rule(rule, other))
    return made


def _clone_rule(rule: Any, other: Callable[[float], float]) -> Any:
    config = rule.get_config()
    return type(rule).from_config(
        {**config, **{name: other(config[name]) for name in numbers.names_of(rule)}}
    )


def _clone_optimizer(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """An equal optimiser; with a momentum that may be zero, it has the variables for any."""
    config = optimizer.get_config()
    config["learning_rate"] = float(optimizer.learning_rate)
    if config.get("momentum") == 0:
        config["momentum"] = numbers.other(0.0)
    return type(optimizer).from_config(config)


def _install_clipping(optimizer: keras.optimizers.Optimizer) -> None:
    """Clipping where a lane's bound may be zero, which to Keras means none."""
    clip = optimizer._clip_gradients
    kind = next(
        (
            name
            for name in ("clipnorm", "global_clipnorm", "clipvalue")
            if getattr(optimizer, name) is not None
        ),
        "",
    )
    if not kind:
        return

    def clip_or_not(gradients: Sequence[Any]) -> list[Any]:
        bound = getattr(optimizer, kind).value
        if kind == "clipvalue":
            clipped = [one if one is None else keras.ops.clip(one, -bound, bound) for one in gradients]
        else:
            clipped = clip(gradients)
        return [
            one if one is None else keras.ops.where(bound > 0, other, one)
            for one, other in zip(gradients, clipped, strict=True)
        ]

    optimizer._clip_gradients = clip_or_not


def _build_losses(plain: keras.Model, batch: Batch) -> None:
    """Lets Keras resolve losses that may hold lane numbers; a loss by name holds none."""
    by_name = all(isinstance(part, str) for part in keras.tree.flatten(plain.loss))
    if not by_name or plain._compile_loss._user_loss_weights is not None:
        plain._symbolic_build(data_batch=batch)


def _lane_optimizer(plain: keras.Model) -> keras.optimizers.Optimizer:
    """A plain model's optimiser with the twin's variables, in its order, as a training starts with them."""
    optimizer = _clone_optimizer(plain.optimizer)
    optimizer.build(plain.trainable_variables)
    return optimizer


def _named(optimizer: keras.optimizers.Optimizer) -> list[str]:
    """Its variables' names, such as another of its class has too, each once.

    Keras counts up those that it gives none, and gives some to several.
    """
    seen: Counter[str] = Counter()
    found = []
    for variable in optimizer.variables:
        name = "unnamed" if re.fullmatch(r"variable(_\d+)?", variable.name) else variable.name
        found.append(f"{name} {seen[name]}")
        seen[name] += 1
    return found
