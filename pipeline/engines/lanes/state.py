"""The lanes of a program on its devices: which axis of each array is theirs, and what goes in and out.

Weights have the lane axis before their last, so that a batch shared by the lanes meets all their kernels in
one matrix product; vectors and scalars have it first.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import keras
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pipeline.engines import controllers
from pipeline.engines.lanes import dispatch, tables
from pipeline.engines.lanes.twin import Twin, Values
from pipeline.values import Array, Budget

AXIS = "lanes"


class State(NamedTuple):
    """All lanes, or something for each of their arrays; L is the number of lanes.

    numbers: (L, slots). tables: (L, ...) each where every lane has rows of its own, else none. control: of
    (L,). epoch: (L,), epochs trained. alive: (L,), whether the lane goes on.
    """

    trainable: Any
    non_trainable: Any
    optimizer: Any
    best_trainable: Any
    best_non_trainable: Any
    numbers: Any
    tables: Any
    control: Any
    epoch: Any
    alive: Any


class Layout:
    """How the lanes of a twin lie in arrays, and the arrays on devices.

    Args:
        twin: of the lanes' models.
        budget: of a trial.
        lanes: how many.
        mesh: the devices that share them.
        own_tables: whether each lane has tables of its own.
    """

    def __init__(self, twin: Twin, budget: Budget, lanes: int, mesh: Mesh, *, own_tables: bool) -> None:
        self.lanes = lanes
        self._budget, self._mesh, self._own_tables = budget, mesh, own_tables
        model = twin.model
        trainable, non_trainable, optimizer = (
            [lane_axis(variable.shape) for variable in group]
            for group in (model.trainable_variables, model.non_trainable_variables, model.optimizer.variables)
        )
        self.weights = (trainable, non_trainable, optimizer)
        self.axes = State(
            trainable,
            non_trainable,
            optimizer,
            trainable,
            non_trainable,
            numbers=0,
            tables=[0] * (len(tables.of_model(model)) if own_tables else 0),
            control=jax.tree.map(lambda _: 0, controllers.start(budget)),
            epoch=0,
            alive=0,
        )
        self.specs = jax.tree.map(lambda axis: PartitionSpec(*([None] * axis), AXIS), self.axes)
        self._shardings = jax.tree.map(lambda spec: NamedSharding(mesh, spec), self.specs)
        self._admit = jax.jit(self._admitted, donate_argnums=0)
        self._resume = jax.jit(self._resumed, donate_argnums=0)
        self._take = jax.jit(partial(_taken, self._of_values(self.axes, *self.weights)))
        self._take_whole = jax.jit(partial(_taken, changing(self.axes)))

    def shapes(self, values: Values) -> State:
        """The arrays' shapes, types and places."""
        shaped: State = jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            jax.eval_shape(partial(self._empty, values)),
            self._shardings,
        )
        return shaped

    def start(self, values: Values, places: Sequence[int] = (), starts: Sequence[Values] = ()) -> State:
        """Lanes that begin with these trainings in these places; elsewhere none is alive.

        values: of any lane.
        """
        # Put together here: to compile it would take longer than to copy it.
        new = self._stacked(places, starts, values)
        control = jax.tree.map(np.asarray, fresh_control(self._budget, self.lanes))
        # No array is there twice: a call writes into those that it is given.
        whole = new._replace(
            best_trainable=jax.tree.map(np.copy, new.trainable),
            best_non_trainable=jax.tree.map(np.copy, new.non_trainable),
            control=control,
        )
        state: State = jax.device_put(whole, self._shardings, may_alias=False)
        return state

    def admit(self, state: State, places: Sequence[int], values: Sequence[Values]) -> State:
        """Puts trainings at their start into lanes; `state` is used up."""
        chosen = np.zeros(self.lanes, bool)
        chosen[list(places)] = True
        admitted: State = dispatch.start(self._admit, state, self._stacked(places, values, None), chosen)
        return admitted

    def resume(self, state: State, lanes: Mapping[int, State]) -> State:
        """Puts trainings where they were, see `whole`, into lanes that they were admitted to."""
        chosen = np.zeros(self.lanes, bool)
        chosen[list(lanes)] = True

        stack = partial(_stacked, self.lanes, tuple(lanes), others=False)
        new = jax.tree.map(stack, changing(self.axes), *lanes.values())
        resumed: State = dispatch.start(self._resume, state, new, chosen)
        return resumed

    def whole(self, state: State, lanes: Sequence[int]) -> list[State]:
        """Some lanes with all that changes while they train: without `numbers` and `tables`."""
        found: list[State] = self._on_host(changing(state), changing(self.axes), self._take_whole, lanes)
        return found

    def best(self, state: State, lanes: Sequence[int]) -> list[Values]:
        """The weights of some lanes at their best epochs, with their optimisers as they are now."""
        return self._values(state, (state.best_trainable, state.best_non_trainable, state.optimizer), lanes)

    def current(self, state: State, lanes: Sequence[int]) -> list[Values]:
        """Some lanes as they are now."""
        return self._values(state, (state.trainable, state.non_trainable, state.optimizer), lanes)

    def _values(self, state: State, groups: tuple[Any, Any, Any], lanes: Sequence[int]) -> list[Values]:
        arrays = self._of_values(state, *groups)
        axes = self._of_values(self.axes, *self.weights)
        return [Values(*found) for found in self._on_host(arrays, axes, self._take, lanes)]

    @staticmethod
    def _of_values(state: State, *groups: Any) -> tuple[Any, ...]:
        return (*groups, state.numbers, state.tables)

    def _on_host(self, arrays: Any, axes: Any, take: Callable[..., Any], lanes: Sequence[int]) -> list[Any]:
        """Copies of what some lanes have in arrays."""
        share = self.lanes // self._mesh.size
        # To find an array's part on a device takes longer than to take a lane out of it.
        shards = {
            device: jax.tree.map(
                lambda array, axis, first=device * share: _shard(array, axis, first), arrays, axes
            )
            for device in {lane // share for lane in lanes}
        }
        # A copy: on a CPU the arrays would be views of memory that the next call takes over.
        return [jax.tree.map(np.array, take(shards[lane // share], lane % share)) for lane in lanes]

    def _empty(self, values: Values) -> State:
        one = self._one(values)._replace(alive=np.zeros((), bool))
        many: State = jax.tree.map(
            lambda leaf, axis: jnp.repeat(jnp.expand_dims(leaf, axis), self.lanes, axis),
            one,
            self.axes._replace(control=()),
        )
        return many._replace(control=fresh_control(self._budget, self.lanes))

    def _one(self, values: Values) -> State:
        """A lane at its start, but for its controllers, whose numbers of 64 bits are made on the device."""
        return State(
            values.trainable,
            values.non_trainable,
            values.optimizer,
            values.trainable,
            values.non_trainable,
            values.numbers,
            list(values.tables) if self._own_tables else [],
            control=(),
            epoch=np.zeros((), np.int32),
            alive=np.ones((), bool),
        )

    def _stacked(self, places: Sequence[int], values: Sequence[Values], others: Values | None) -> State:
        """Lanes at their start in their places; elsewhere others, which are not alive, or zeros.

        Without controllers and best weights.
        """
        starts = [_first_half(self._one(value)) for value in values]
        if others is not None:
            starts.append(_first_half(self._one(others))._replace(alive=np.zeros((), bool)))
        stack = partial(_stacked, self.lanes, places, others=others is not None)
        stacked: State = jax.tree.map(stack, _first_half(self.axes), *starts)
        return stacked

    def _admitted(self, state: State, new: State, chosen: jax.Array) -> State:
        new = new._replace(
            best_trainable=new.trainable,
            best_non_trainable=new.non_trainable,
            control=fresh_control(self._budget, self.lanes),
        )
        admitted: State = jax.tree.map(partial(choose, chosen), new, state, self.axes)
        return admitted

    def _resumed(self, state: State, new: State, chosen: jax.Array) -> State:
        resumed: State = jax.tree.map(partial(choose, chosen), new, changing(state), changing(self.axes))
        return resumed._replace(numbers=state.numbers, tables=state.tables)


def at_start(values: Values, budget: Budget) -> State:
    """A lane at its training's start, as `Layout.whole` gives it later."""
    control = jax.tree.map(lambda leaf: np.asarray(leaf)[0], fresh_control(budget, 1))
    weights = (values.trainable, values.non_trainable)
    return State(
        *weights, values.optimizer, *weights, (), (), control, np.zeros((), np.int32), np.ones((), bool)
    )


def changing(state: State) -> State:
    """A state without what stays the same while a lane trains."""
    return state._replace(numbers=(), tables=())


def _stacked(lanes: int, places: Sequence[int], axis: int, *leaves: Array, others: bool) -> Array:
    """An array of all lanes: each leaf in its place; elsewhere zeros, or with `others` the last leaf."""
    shape = np.shape(leaves[0])
    whole = np.zeros((*shape[:axis], lanes, *shape[axis:]), leaves[0].dtype)
    if others:
        whole[...] = np.expand_dims(leaves[-1], axis)
    for place, leaf in zip(places, leaves, strict=False):
        whole[(slice(None),) * axis + (place,)] = leaf
    return whole


def _taken(axes: Any, shards: Any, place: jax.Array) -> Any:
    return jax.tree.map(
        lambda axis, array: jax.lax.dynamic_index_in_dim(array, place, axis, keepdims=False), axes, shards
    )


def _first_half(state: State) -> State:
    """A state without what follows from the rest at a training's start."""
    return state._replace(control=(), best_trainable=(), best_non_trainable=())


def lane_axis(shape: Sequence[int]) -> int:
    """Where the lane axis goes in an array that has this shape in one lane."""
    return max(0, len(shape) - 1)


def choose(which: jax.Array, new: jax.Array, old: jax.Array, axis: int) -> jax.Array:
    """`new` in the lanes of `which`, (L,), `old` in the others."""
    # Not `where`, which takes ten times as long to trace, and there are hundreds.
    return jax.lax.select(jax.lax.broadcast_in_dim(which, new.shape, (axis,)), new, old)


def fresh_control(budget: Budget, lanes: int) -> controllers.Controllers:
    """The controllers of lanes at their start, (lanes,) each."""
    start = narrow(controllers.start(budget))
    fresh: controllers.Controllers = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (lanes,)), start)
    return fresh


def narrow(control: controllers.Controllers) -> controllers.Controllers:
    """Controllers whose values have the width in which a program logs them; nothing is lost by it.

    What crosses the border of a program has no 64 bits, unless everything has.
    """
    dtype = keras.config.floatx()
    with jax.enable_x64(new_val=True):
        narrowed: controllers.Controllers = jax.tree.map(
            lambda leaf: leaf.astype(dtype) if leaf.dtype == jnp.float64 else leaf, control
        )
    return narrowed


def _shard(array: jax.Array, axis: int, first: int) -> jax.Array:
    """The part of the lanes from `first` on, on the device that has it."""
    for shard in array.addressable_shards:
        if (shard.index[axis].start or 0) == first:
            return shard.data
    raise LookupError(f"no device here has lane {first}")
