"""From a candidate to a lane: its models are built on one thread, its program is compiled on another."""

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import keras
import numpy as np

from pipeline.engines import precision, rows
from pipeline.engines.lanes import devices, fit_loop, memory, selfcheck, signature, sizing
from pipeline.engines.lanes.clock import Clock
from pipeline.engines.lanes.entries import Entry, Key
from pipeline.engines.lanes.keeping import Keeper
from pipeline.engines.lanes.orders import Orders
from pipeline.engines.lanes.plan import Plan
from pipeline.engines.lanes.refusal import Refusal, in_short
from pipeline.engines.lanes.streamed import AnyProgram, program_of
from pipeline.engines.lanes.turns import Turns
from pipeline.engines.lanes.twin import Batch, Twin, Values, widened
from pipeline.engines.models import built, check_logged
from pipeline.seeds import derived
from pipeline.values import Array, Budget, Candidate, Data, Objective, Settings, Split

# Orders of a call's epochs are sent to the devices: as many as are nothing beside the rows.
_ORDER_ROWS, _MOST_EPOCHS = 32_768, 64
_CHECKED_ROWS = 2


class Builder:
    """Builds models and compiles programs, off the search loop's thread.

    Args:
        build: makes a compiled model of settings and data, as `Task.build`.
        folds: the data of each fold; one for training without folds.
        whole: the split that folds are taken from; None without folds.
        budget: what ends a training.
        objective: the logged metric that scores a trial.
        lanes: of each program; None to choose.
        trials: as many as there will be, at most.
        clock: is told how long compiling took.
        orders: in which lanes see their rows.
        turns: of those who measure and those who train.
        keeper: knows which trainings go on from a checkpoint.
        fit_if_faster: refuses models that `model.fit` would train faster here.
        until: when the study is ended, on `time.monotonic()`.
        memory: bytes of each device; None to ask it.
    """

    def __init__(  # noqa: PLR0913  # it is built in one place
        self,
        build: Callable[[Settings, Data], keras.Model],
        folds: Sequence[Data],
        whole: Split | None,
        budget: Budget,
        objective: Objective,
        lanes: int | None,
        trials: int,
        clock: Clock,
        *,
        orders: Orders,
        turns: Turns,
        keeper: Keeper,
        fit_if_faster: bool = False,
        until: float = math.inf,
        memory: float | None = None,
    ) -> None:
        self._fit_if_faster, self._orders, self._until = fit_if_faster, orders, until
        self._turns, self._keeper, self._ended = turns, keeper, threading.Event()
        self._build, self._folds, self._budget, self._trials, self._clock = (
            build,
            folds,
            budget,
            trials,
            clock,
        )
        self._needed, self._objective = [objective.metric, budget.monitor], objective
        self._mesh = devices.mesh(lanes)
        self._given, self._chosen = lanes is not None, False
        self.lanes = lanes or sizing.first_count(self._mesh.size, trials * len(folds))
        self._data = devices.DataOnDevices(folds, whole, self._mesh, by_lane=orders.by_lane, memory=memory)
        self._builder = ThreadPoolExecutor(1, thread_name_prefix="builder")
        self._compiler = ThreadPoolExecutor(1, thread_name_prefix="compiler")
        self._twins: dict[str, Twin] = {}
        self._built: Counter[Key] = Counter()
        self._compared: set[str] = set()
        self._refused: dict[str, str] = {}
        self._loop_seconds: float | None = None

    def build(self, candidate: Candidate) -> "Future[list[Entry]]":
        """Its models, one for each fold, ready for a lane; raises Refusal, or what building raised."""
        return self._builder.submit(self._prepare, candidate)

    def compile(self, entry: Entry) -> "Future[AnyProgram]":
        """The program of an entry's models, compared with them; raises Refusal."""
        return self._compiler.submit(self._compile, entry)

    def refuse(self, structure: str, reason: str) -> None:
        """Remembers that lanes cannot take models of this structure."""
        self._refused[structure] = reason

    def halve(self, lanes: int) -> int:
        """A program of so many lanes ran out of memory: how many there are now; 0 if not fewer."""
        left = memory.fewer(lanes, self._mesh.size)
        if left:
            self.lanes, self._chosen = min(self.lanes, left), True
        return left

    def close(self) -> None:
        """Ends what it does, and the calls of programs whose rows are streamed."""
        self._ended.set()
        self._builder.shutdown(cancel_futures=True)
        # What is being compiled cannot be stopped, and nobody waits for it any more.
        self._compiler.shutdown(wait=False, cancel_futures=True)

    def _prepare(self, candidate: Candidate) -> list[Entry]:
        """Builds the candidate's models, one for each fold; on the builder's thread."""
        entries = [self._entry(candidate, fold, data) for fold, data in enumerate(self._folds)]
        self._keeper.find(entries)
        return entries

    def _entry(self, candidate: Candidate, fold: int, data: Data) -> Entry:
        seed = derived(candidate.seed, fold)
        # As under fit: initial weights derive from the trial's seed (and fold) alone.
        plain = built(self._build, candidate.settings, data, seed)
        batch = _batch(data.train, plain, np.arange(min(_CHECKED_ROWS, data.train.rows)))
        if not plain.built:
            # As Keras does with the first batch that it sees.
            plain._symbolic_build(data_batch=batch)
        structure = signature.of_model(plain, own_tables=len(self._folds) > 1).digest
        if structure in self._refused:
            raise Refusal(self._refused[structure])
        key = Key(
            structure,
            int(candidate.settings["batch_size"]),
            bool(candidate.settings["shuffle"]),
            data.train.rows,
            data.validation.rows,
        )
        self._built[key] += 1
        if structure not in self._twins:
            try:
                twin = Twin(plain, batch, key.batch_size)
            except Refusal as refusal:
                self.refuse(structure, str(refusal))
                raise
            logged = self._objective.with_means(dict.fromkeys(twin.logged(), 0.0))
            check_logged(list(logged), self._needed)
            self._twins[structure] = twin
        twin = self._twins[structure]
        return Entry(
            candidate,
            fold,
            key,
            plain,
            twin,
            twin.values(plain, batch, seed, candidate.settings, self._budget.epochs, candidate.epochs),
        )

    def _compile(self, entry: Entry) -> AnyProgram:
        """Compiles the program of an entry's models and compares it with them; on the compiler's thread."""
        began = time.monotonic()

        def make(lanes: int) -> AnyProgram:
            return self._program(entry, entry.twin, entry.values, lanes)

        try:
            while True:
                try:
                    program = self._sized(make, entry)
                    if entry.key.structure not in self._compared:
                        self._compare(program, entry)
                        self._compared.add(entry.key.structure)
                    return program
                except Exception as error:
                    if not memory.is_out(error) or not self.halve(self.lanes):
                        raise
        except Refusal:
            raise
        except Exception as error:
            # Whatever tracing a layer of the user's raises.
            raise Refusal(f"its step cannot be compiled for lanes: {in_short(error)}") from error
        finally:
            self._clock.compiled(time.monotonic() - began)

    def _program(self, entry: Entry, twin: Twin, values: Values, lanes: int) -> AnyProgram:
        there = self._data.of(entry.fold, entry.plain)
        plan = Plan(
            twin,
            self._budget,
            entry.key.batch_size,
            there,
            lanes,
            self._mesh,
            max(1, min(_MOST_EPOCHS, _ORDER_ROWS // there.learn_rows)),
            self._objective.with_means,
        )
        program = program_of(plan, self._ended.is_set)
        program.compile(values)
        return program

    def _sized(self, make: Callable[[int], AnyProgram], entry: Entry) -> AnyProgram:
        """A program of as many lanes as the first one was found to run best with, or as it will need."""
        if self._given:
            return make(self.lanes)
        began = time.monotonic()
        if self._chosen:
            program = make(self.lanes)
        else:
            trainings = self._trials * len(self._folds)
            program, self.lanes = sizing.choose(
                make,
                entry.values,
                self.lanes,
                self._mesh.size,
                trainings,
                trainings * self._budget.epochs,
                self._until - began,
                self._turns.alone,
            )
            self._chosen = True
        seconds = time.monotonic() - began
        fewer = sizing.enough(self.lanes, self._mesh.size, self._expected(entry.key))
        if sizing.pays(program, entry.values, fewer, self._budget.epochs, seconds, self._turns.alone):
            return make(fewer)
        return program

    def _expected(self, key: Key) -> float:
        """The trainings that a program will have, if the others are drawn like those that were built."""
        return self._trials * len(self._folds) * self._built[key] / self._built.total()

    def _compare(self, program: AnyProgram, entry: Entry) -> None:
        if precision.is_narrow(entry.plain):
            self._compare_wide(entry)
        plain = self._compared_with(program, entry, entry.twin, entry.plain, entry.values)
        if self._fit_if_faster:
            by_fit = plain.step + plain.compiling / (program.steps * self._budget.epochs) + self._loop_step()
            if reason := sizing.loses(program, entry.values, by_fit, self._turns.alone):
                raise Refusal(reason)

    def _compare_wide(self, entry: Entry) -> None:
        """Compares a model's structure with 32 bits, as 16 would hide a number that is read wrongly."""
        train = self._folds[entry.fold].train
        few = _batch(train, entry.plain, np.arange(min(_CHECKED_ROWS, train.rows)))
        try:
            wide = widened(entry.plain)
        except Exception as error:
            raise Refusal(f"it cannot be made with 32 bits, to compare them: {in_short(error)}") from error
        twin = Twin(wide, few, entry.key.batch_size)
        values = twin.values(wide, few, entry.candidate.seed)
        # As few lanes as the devices take: it trains nothing.
        program = self._program(entry, twin, values, self._mesh.size)
        self._compared_with(program, entry, twin, wide, values)

    def _compared_with(
        self, program: AnyProgram, entry: Entry, twin: Twin, plain: keras.Model, values: Values
    ) -> selfcheck.Plain:
        train = self._folds[entry.fold].train
        learn, check = self._orders.unshuffled(entry, program.lanes)
        with twin.lock:
            batch = _batch(train, plain, np.arange(min(entry.key.batch_size, train.rows)))
            orders = (program.orders([learn]), check)
            return selfcheck.compare(program, twin, plain, values, batch, orders, self._turns.alone)

    def _loop_step(self) -> float:
        """Seconds that Keras's own loop takes a step, whatever the model; measured once."""
        if self._loop_seconds is None:
            self._loop_seconds = fit_loop.step_seconds(self._turns.alone)
        return self._loop_seconds


def _batch(split: Split, model: keras.Model, numbers: Array) -> Batch:
    """Rows as Keras's train_step takes them."""
    return rows.for_keras(split.take(numbers), model)
