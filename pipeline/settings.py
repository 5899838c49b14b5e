"""The vocabulary of settings: what a search space may name, its legal values, and what they mean.

A task lists the parameters that its model reads; `space.py` checks a file against that list. The defaults
are Keras's own (https://keras.io/api), so a setting that is left out changes nothing.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

from pipeline.values import Setting, Settings

# Beyond it, neighbouring whole numbers are one number to a float.
_LARGEST = 2**53

Kind = Literal["float", "int", "bool", "word"]


@dataclass(frozen=True)
class Parameter:
    """A setting a task reads.

    low and high are the legal range, both included unless `open_low` / `open_high`. words: the words
    that may stand in place of a number ("none" for a MaxNorm that is off), or all the values of a word
    parameter. in_loss: the number is part of Keras's `loss`, so losses of two values cannot be compared.
    needs: another setting, and its values under which this one is read; None where it always is.
    """

    name: str
    kind: Kind
    default: Setting
    meaning: str
    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False
    words: tuple[str, ...] = ()
    in_loss: bool = False
    needs: tuple[str, tuple[Setting, ...]] | None = None

    def fault(self, value: object) -> str | None:
        """The rule that `value` breaks, or None if it is legal."""
        if isinstance(value, str):
            return None if value in self.words else self._rule()
        if self.kind == "bool":
            return None if isinstance(value, bool) else self._rule()
        if isinstance(value, bool) or self.kind == "word":
            return self._rule()
        if not isinstance(value, int) and (self.kind == "int" or not isinstance(value, float)):
            return self._rule()
        if isinstance(value, int) and abs(value) > _LARGEST:
            return f"must lie within ±{_LARGEST:.0e}"
        return None if self._holds(value) else self._rule()

    def is_read(self, settings: Settings) -> bool:
        """Whether a model with these settings reads it."""
        needed, values = self.needs or ("", ())
        return needed not in settings or settings[needed] in values

    def _holds(self, number: float) -> bool:
        above = number > self.low if self.open_low else number >= self.low
        below = number < self.high if self.open_high else number <= self.high
        return math.isfinite(number) and above and below

    def _rule(self) -> str:
        words = " or ".join(f'"{word}"' for word in self.words)
        if self.kind == "word":
            return f"must be {words}"
        if self.kind == "bool":
            return "must be true or false"
        number = "a whole number" if self.kind == "int" else "a number"
        low = f" {'>' if self.open_low else '≥'} {self.low:g}" if math.isfinite(self.low) else ""
        high = f" {'<' if self.open_high else '≤'} {self.high:g}" if math.isfinite(self.high) else ""
        return f"must be {number}{low}{' and' if low and high else ''}{high}{' or ' + words if words else ''}"


# Settings of training. The engine reads these, the model reads the rest.
BATCH_SIZE = Parameter("batch_size", "int", 32, "rows a gradient step sees", low=1)
SHUFFLE = Parameter(
    "shuffle", "bool", default=True, meaning="whether each epoch sees the rows in a new order"
)
SCHEDULE = Parameter(
    "schedule",
    "word",
    "plateau",
    "how the learning rate goes on: lowered where the monitor stands still, or by a plan",
    words=("plateau", "constant", "exponential", "cosine", "step"),
)
_PLANNED = ("schedule", ("exponential", "cosine", "step"))
SCHEDULE_FINAL = Parameter(
    "schedule_final",
    "float",
    0.01,
    "share of the first learning rate that a plan ends with",
    low=0,
    high=1,
    open_low=True,
    needs=_PLANNED,
)
SCHEDULE_EPOCHS = Parameter(
    "schedule_epochs",
    "int",
    "epochs",
    "epochs of a plan; as long as a trial may train",
    low=1,
    words=("epochs",),
    needs=_PLANNED,
)
TRAINING = (BATCH_SIZE, SHUFFLE, SCHEDULE, SCHEDULE_FINAL, SCHEDULE_EPOCHS)

LEARNING_RATE = Parameter(
    "learning_rate", "float", 0.001, "the optimiser's step size at the first epoch", low=0, open_low=True
)
DROPOUT = Parameter(
    "dropout",
    "float",
    0.0,
    "share of activations set to zero while training",
    low=0,
    high=1,
    open_high=True,
    needs=("dropout_on", (True,)),
)
BATCH_NORMALIZATION = Parameter(
    "batch_normalization", "bool", default=True, meaning="whether the layers are there"
)
_NORMALIZED = ("batch_normalization", (True,))
BN_MOMENTUM = Parameter(
    "bn_momentum",
    "float",
    0.99,
    "of BatchNormalization's moving averages",
    low=0,
    high=1,
    open_high=True,
    needs=_NORMALIZED,
)
BN_EPSILON = Parameter(
    "bn_epsilon",
    "float",
    0.001,
    "added to BatchNormalization's variance",
    low=0,
    open_low=True,
    needs=_NORMALIZED,
)
L1 = Parameter("l1", "float", 0.0, "L1 penalty of the kernels", low=0, in_loss=True, needs=("l1_on", (True,)))
L2 = Parameter("l2", "float", 0.0, "L2 penalty of the kernels", low=0, in_loss=True, needs=("l2_on", (True,)))
MAX_NORM = Parameter(
    "max_norm",
    "float",
    "none",
    "largest norm of a unit's incoming weights; none switches it off",
    low=0,
    open_low=True,
    words=("none",),
    needs=("max_norm_on", (True,)),
)
ACTIVITY_L1 = Parameter(
    "activity_l1",
    "float",
    0.0,
    "L1 penalty of the hidden layers' outputs",
    low=0,
    in_loss=True,
    needs=("activity_l1_on", (True,)),
)
# Searched beside their numbers, these ask whether a technique helps at all.
DROPOUT_ON, L1_ON, L2_ON, MAX_NORM_ON, ACTIVITY_L1_ON = (
    Parameter(
        f"{technique.name}_on",
        "bool",
        default=True,
        meaning=f"whether {technique.name} is applied",
        in_loss=technique.in_loss,
    )
    for technique in (DROPOUT, L1, L2, MAX_NORM, ACTIVITY_L1)
)
SWITCHES = {
    switch.name: technique
    for switch, technique in (
        (DROPOUT_ON, DROPOUT),
        (L1_ON, L1),
        (L2_ON, L2),
        (MAX_NORM_ON, MAX_NORM),
        (ACTIVITY_L1_ON, ACTIVITY_L1),
    )
}
"""The number that each switch is of, at its default off."""
BN_POSITION = Parameter(
    "bn_position",
    "word",
    "after",
    "where BatchNormalization stands to the activation",
    words=("after", "before"),
    needs=_NORMALIZED,
)
BN_BETA_STDDEV = Parameter(
    "bn_beta_stddev",
    "float",
    0.0,
    "of BatchNormalization's first beta, drawn from a normal",
    low=0,
    needs=_NORMALIZED,
)
BN_GAMMA = Parameter("bn_gamma", "float", 1.0, "BatchNormalization's first gamma", needs=_NORMALIZED)
REGULARISATION = (
    DROPOUT,
    DROPOUT_ON,
    BATCH_NORMALIZATION,
    BN_MOMENTUM,
    BN_EPSILON,
    BN_BETA_STDDEV,
    BN_GAMMA,
    L1,
    L1_ON,
    L2,
    L2_ON,
    MAX_NORM,
    MAX_NORM_ON,
)

OPTIMIZER = Parameter(
    "optimizer", "word", "adam", "what makes steps of gradients", words=("adam", "adamw", "rmsprop", "sgd")
)
MOMENTUM = Parameter(
    "momentum",
    "float",
    0.9,
    "of the optimiser sgd",
    low=0,
    high=1,
    open_high=True,
    needs=("optimizer", ("sgd",)),
)
WEIGHT_DECAY = Parameter(
    "weight_decay", "float", 0.004, "of the optimiser adamw", low=0, needs=("optimizer", ("adamw",))
)
INITIALIZER = Parameter(
    "initializer",
    "word",
    "glorot_uniform",
    "what draws the first kernels",
    words=(
        "glorot_uniform",
        "glorot_normal",
        "he_uniform",
        "he_normal",
        "lecun_uniform",
        "lecun_normal",
        "orthogonal",
        "random_normal",
    ),
)
ACTIVATION = Parameter(
    "activation",
    "word",
    "relu",
    "of the hidden layers",
    words=("linear", "relu", "leaky_relu", "elu", "selu", "gelu", "silu", "tanh", "sigmoid", "softplus"),
)
SCALING = Parameter(
    "scaling",
    "word",
    "standardise",
    "of the inputs, inside the model, by numbers of the training rows",
    words=("standardise", "min_max", "none"),
)


def techniques(*, optimizer: str, activation: str = "", scaling: str = "") -> tuple[Parameter, ...]:
    """The settings that any task's blocks can read, with a task's own defaults.

    optimizer, activation, scaling: as published. Without an activation or a scaling the model has none that
    could be chosen.
    """
    own = (
        replace(ACTIVATION, default=activation) if activation else None,
        ACTIVITY_L1 if activation else None,
        ACTIVITY_L1_ON if activation else None,
        BN_POSITION if activation else None,
        replace(SCALING, default=scaling) if scaling else None,
    )
    return (
        LEARNING_RATE,
        *TRAINING,
        *REGULARISATION,
        replace(OPTIMIZER, default=optimizer),
        MOMENTUM,
        WEIGHT_DECAY,
        INITIALIZER,
        *filter(None, own),
    )


# Shape of the Dense tasks; "published" is the model as it was published.
UNITS = Parameter("units", "int", "published", "units of every hidden layer", low=1, words=("published",))
HIDDEN_LAYERS = Parameter(
    "hidden_layers", "int", "published", "how many hidden layers", low=1, high=64, words=("published",)
)
