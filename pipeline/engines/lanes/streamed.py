"""A program whose rows stay on the host: chunk by chunk they are sent to the devices, and learned from there.

The steps, the validation and the end of an epoch are those of `program.Program`, compiled as three functions
in place of one. While a chunk is learned from, the next is gathered and sent.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from pipeline.engines.lanes import dispatch
from pipeline.engines.lanes.chunks import UNDER_WAY, Chunks, Part
from pipeline.engines.lanes.epoch import Logs, Metrics, Work, cut
from pipeline.engines.lanes.plan import EVERYWHERE, Plan, Report
from pipeline.engines.lanes.program import Program, needed
from pipeline.engines.lanes.state import AXIS, State
from pipeline.engines.lanes.twin import Batch, Values
from pipeline.values import Array


class StreamedProgram:
    """A plan whose rows stay on the host; as `program.Program` for those who run it.

    Args:
        plan: its rows say what room there is.
        ended: whether the study is; a call under way then raises `Ended`.

    Raises:
        Refusal: not even a batch fits the room.
        MemoryError: it does not, but with fewer lanes would.
    """

    def __init__(self, plan: Plan, *, ended: Callable[[], bool] = lambda: False) -> None:
        rows, mesh, sizes = plan.rows, plan.mesh, plan.sizes
        if rows.room is None:
            raise ValueError("rows that are streamed need a room, but have none")
        self.lanes, self.most_epochs, self.layout = plan.lanes, plan.most_epochs, plan.layout
        self._plan, self._ended = plan, ended
        own = plan.lanes if rows.own else 0
        self._learned = Chunks(
            rows.train, sizes.batch, sizes.steps, sizes.rest, lanes=own, devices=mesh.size, room=rows.room
        )
        self._checked = Chunks(
            rows.check,
            sizes.check,
            sizes.checks,
            sizes.check_rest,
            lanes=own,
            devices=mesh.size,
            room=rows.room,
        )
        self._rows_place = NamedSharding(mesh, plan.by_lane)
        self._learn: Any = None
        self._check: Any = None
        self._judge: Any = None
        self._fresh: Metrics = []

    @property
    def steps(self) -> int:
        """Full batches of an epoch."""
        return self._plan.sizes.steps

    def compile(self, values: Values) -> None:
        """Compiles, for lanes like this one; other threads run meanwhile, but while it is traced."""
        specs, by_lane, mesh = self.layout.specs, self._plan.by_lane, self._plan.mesh
        of_metrics = [PartitionSpec(*([None] * axis), AXIS) for axis in self._plan.epoch.metric_axes]
        fed_in = (specs, EVERYWHERE, of_metrics, by_lane, EVERYWHERE)
        fed_out = (specs, of_metrics, PartitionSpec(AXIS))

        def sharded(function: Callable[..., Any], ins: Any, outs: Any) -> Any:
            mapped = jax.shard_map(function, mesh=mesh, in_specs=ins, out_specs=outs, check_vma=False)
            return jax.jit(mapped, donate_argnums=0)

        self._fresh = jax.device_put(
            self._plan.epoch.fresh(self.lanes), [NamedSharding(mesh, spec) for spec in of_metrics]
        )
        with self._plan.twin.lock:
            state, work = self.layout.shapes(values), _work(Part(0, 0, 0))
            fed = (state, self._plan.tables, self._fresh)
            lowered = (
                sharded(self._learned_from, fed_in, fed_out).lower(
                    *fed, self._learned.shapes(self._rows_place), work
                ),
                sharded(self._checked_on, fed_in, fed_out).lower(
                    *fed, self._checked.shapes(self._rows_place), work
                ),
                sharded(
                    self._plan.epoch.judge, (specs, of_metrics, of_metrics), (specs, PartitionSpec(AXIS))
                ).lower(state, self._fresh, self._fresh),
            )
        self._learn, self._check, self._judge = (one.compile() for one in lowered)

    def run(self, state: State, order: Array, check_order: Array | None, epochs: int) -> tuple[State, Logs]:
        """As `Program.run`, but returns when the last epoch is over.

        Raises:
            Ended: the study is.
        """
        if check_order is None:
            check_order = np.arange(self._plan.rows.check_rows)
        logs: list[Logs] = []
        under_way: deque[jax.Array] = deque()
        for learn_order in order[:epochs]:
            metrics = checked = self._fresh
            for chunk, work in self._fed(self._learned, learn_order, under_way):
                state, metrics, done = dispatch.start(
                    self._learn, state, self._plan.tables, metrics, chunk, work
                )
                under_way.append(done)
            for chunk, work in self._fed(self._checked, check_order, under_way):
                state, checked, done = dispatch.start(
                    self._check, state, self._plan.tables, checked, chunk, work
                )
                under_way.append(done)
            state, found = dispatch.start(self._judge, state, metrics, checked)
            logs.append(found)
        return state, jax.tree.map(lambda *leaves: np.stack(leaves), *logs)

    def some_steps(
        self, state: State, steps: int, order: Array | None = None, check_order: Array | None = None
    ) -> State:
        """As `Program.some_steps`."""
        order = self._plan.any_order() if order is None else order
        metrics, under_way = self._fresh, deque[jax.Array]()
        for chunk, work in self._fed(self._learned, order[0], under_way, steps):
            state, metrics, done = dispatch.start(self._learn, state, self._plan.tables, metrics, chunk, work)
            under_way.append(done)
        after: State = dispatch.start(self._judge, state, metrics, self._fresh)[0]
        return after

    def orders(self, each: Sequence[Array]) -> Array:
        """As `Plan.orders`."""
        return self._plan.orders(each)

    def memory(self) -> int:
        """Bytes that a device needs for it, as the compiler tells; 0 where it does not."""
        found = max(map(needed, (self._learn, self._check, self._judge)))
        return found and found + (UNDER_WAY - 1) * max(self._learned.bytes, self._checked.bytes)

    @staticmethod
    def report(logs: Logs, epochs: int) -> Report:
        """What a call did."""
        return Report.of(logs, epochs)

    def _fed(
        self, chunks: Chunks, order: Array, under_way: "deque[jax.Array]", batches: int | None = None
    ) -> Iterator[tuple[Batch, Work]]:
        """An epoch's chunks on the devices, each when there is room for it, and what to do of it."""
        for part in chunks.parts(batches):
            if self._ended():
                raise Ended("the study has ended")
            while len(under_way) >= UNDER_WAY:
                under_way.popleft().block_until_ready()
            chunk = jax.device_put(chunks.gathered(order, part.first), self._rows_place)
            yield chunk, _work(part)

    def _learned_from(
        self, state: State, shared: Any, metrics: Metrics, chunk: Batch, work: Work
    ) -> tuple[State, Metrics, jax.Array]:
        """Gradient steps of a chunk, as they are compiled for one device; and what is there when they are."""
        state, metrics = self._plan.epoch.learn(state, shared, metrics, self._batch_of(chunk), work)
        return state, metrics, state.epoch + work.steps

    def _checked_on(
        self, state: State, shared: Any, metrics: Metrics, chunk: Batch, work: Work
    ) -> tuple[State, Metrics, jax.Array]:
        """Validation batches of a chunk, likewise."""
        state, metrics = self._plan.epoch.check(state, shared, metrics, self._batch_of(chunk), work)
        return state, metrics, state.epoch + work.checks

    def _batch_of(self, chunk: Batch) -> Callable[[Any, int], Batch]:
        axis = 1 if self._plan.rows.own else 0
        return lambda first, size: cut(chunk, first, size, axis)


class Ended(Exception):
    """A call was given up, as its study has ended."""


AnyProgram = Program | StreamedProgram
"""What a berth runs; they differ in nothing but where the rows are, and when `run` returns."""


def program_of(plan: Plan, ended: Callable[[], bool] = lambda: False) -> AnyProgram:
    """The program that suits the plan's rows, not yet compiled. ended: as of `StreamedProgram`."""
    return StreamedProgram(plan, ended=ended) if plan.rows.room else Program(plan)


def _work(part: Part) -> Work:
    """What to do of a chunk. Its full batches are steps or checks, as it is learned from or checked on."""
    return Work(np.int32(0), np.int32(part.full), np.int32(part.rest), np.int32(part.full))
