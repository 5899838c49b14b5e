"""The lanes engine: trials of one structure side by side in one program, refilled as they end.

Three threads keep the programs fed: one builds the models of candidates, one compiles, one saves what has
ended. While a call runs, the search loop handles what the last one brought.
"""

import contextlib
import logging
import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from pipeline.engines.checkpoints import Checkpoints
from pipeline.engines.engine import Event, Interrupted, Times
from pipeline.engines.lanes import memory
from pipeline.engines.lanes.berth import Berth, Call
from pipeline.engines.lanes.building import Builder
from pipeline.engines.lanes.clock import Clock
from pipeline.engines.lanes.entries import Entry, Key
from pipeline.engines.lanes.finishing import Finisher
from pipeline.engines.lanes.folding import Folds
from pipeline.engines.lanes.keeping import Keeper
from pipeline.engines.lanes.orders import Orders
from pipeline.engines.lanes.refusal import Refusal, in_full, in_short
from pipeline.engines.lanes.streamed import AnyProgram
from pipeline.engines.lanes.turns import Turns
from pipeline.secrets import hidden
from pipeline.values import Budget, Candidate, Data, Objective, Outcome, Progress, Settings, Split

_log = logging.getLogger(__name__)

_WAIT_SECONDS = 0.5


@dataclass(frozen=True)
class Refused:
    """A candidate that lanes cannot take, with the reason; it is not in the engine any more."""

    candidate: Candidate
    reason: str

    @property
    def number(self) -> int:
        return self.candidate.number


class LanesEngine:
    """Trains many candidates side by side.

    Args:
        build: makes a compiled model of settings and data, as `Task.build`.
        folds: the data of each fold; one for training without folds.
        whole: the split that folds are taken from; None without folds.
        budget: what ends a training, see `Budget`.
        objective: the logged metric that scores a trial.
        folder: where the trained models are put; it exists.
        lanes: of each program; None to choose.
        seed: the study's, from which row orders derive.
        trials: as many as there will be, at most.
        keeps: what a trial keeps besides its model, see `finishing.Finisher`.
        fit_if_faster: refuses models that `model.fit` would train faster here.
        own_orders: each training sees its rows in an order that derives from its own seed, whatever trains
            beside it; otherwise all lanes of a program share one, which is faster.
        until: when the study is ended, on `time.monotonic()`: a short one has no time to find the best number
            of lanes.
        memory: bytes of each device, of which rows may take their share; None to ask it.
        checkpoints: from which interrupted trainings go on; None to keep none.
    """

    def __init__(  # noqa: PLR0913  # it is built in one place
        self,
        build: Callable[[Settings, Data], keras.Model],
        folds: Sequence[Data],
        whole: Split | None,
        budget: Budget,
        objective: Objective,
        folder: Path,
        *,
        lanes: int | None,
        seed: int,
        trials: int,
        keeps: Collection[str] = (),
        fit_if_faster: bool = False,
        own_orders: bool = False,
        until: float = math.inf,
        memory: float | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        self._clock = Clock()
        self._folds, self._budget, self._objective = tuple(folds), budget, objective
        self._orders = Orders(seed, self._folds, own=own_orders)
        self._turns = Turns()
        self._keeper = Keeper(checkpoints, self._folds, budget, objective)
        self._builder = Builder(
            build,
            self._folds,
            whole,
            budget,
            objective,
            lanes,
            trials,
            self._clock,
            orders=self._orders,
            turns=self._turns,
            keeper=self._keeper,
            fit_if_faster=fit_if_faster,
            until=until,
            memory=memory,
        )
        self._finisher = Finisher(objective, self._folds[0], folder, self._orders, keeps)
        self._watcher = ThreadPoolExecutor(4, thread_name_prefix="watcher")
        self._candidates: dict[int, Candidate] = {}
        self._building: dict[Future[list[Entry]], Candidate] = {}
        self._compiling: dict[Key, tuple[Future[AnyProgram], list[Entry]]] = {}
        self._berths: dict[Key, Berth] = {}
        self._finishing: dict[Future[Outcome], int] = {}
        self._folds_done = Folds(len(self._folds), objective, self._finisher)

    # The engine's interface

    def free(self) -> int:
        # To begin with as many as a program has lanes; then enough that the next is ready in time.
        wanted = max(1, self._builder.lanes // 2) if self._berths else self._builder.lanes
        return max(0, wanted - self._unplaced())

    def add(self, candidate: Candidate) -> None:
        self._candidates[candidate.number] = candidate
        self._building[self._builder.build(candidate)] = candidate

    def step(self) -> Sequence[Event | Refused]:
        events: list[Event | Refused] = []
        self._place(events)
        self._launch(events)
        under_way = [berth for berth in self._berths.values() if berth.call]
        if under_way:
            calls = [berth.call.done for berth in under_way if berth.call]
            # A call may be longer than a search that is to stop can wait.
            wait(calls, timeout=_WAIT_SECONDS, return_when=FIRST_COMPLETED)
            for berth in under_way:
                if berth.call and berth.call.done.done():
                    with self._bearing(berth, events):
                        self._take(berth, berth.call, events)
            # The devices go on while the search loop handles the events.
            self._launch(events)
        elif not events and not self._finished(events):
            pending: list[Future[Any]] = [*self._building, *self._finishing]
            pending += [future for future, _ in self._compiling.values()]
            if pending:
                wait(pending, timeout=_WAIT_SECONDS, return_when=FIRST_COMPLETED)
        self._finished(events)
        return events

    def drop(self, number: int) -> None:
        if self._candidates.pop(number, None) is None:
            return
        for berth in self._berths.values():
            berth.drop(number)
        for key, (future, entries) in self._compiling.items():
            kept = [entry for entry in entries if entry.candidate.number != number]
            self._compiling[key] = (future, kept)
        self._folds_done.forget(number)
        self._keeper.forget(number)

    def times(self) -> Times:
        return self._clock.times()

    def running(self) -> set[int]:
        """The trials that it has."""
        return set(self._candidates)

    def close(self) -> None:
        self._builder.close()
        self._finisher.close()
        self._watcher.shutdown(cancel_futures=True)
        self._berths.clear()

    # From candidate to lane

    def _unplaced(self) -> int:
        """Candidates that are in no lane yet."""
        queued = {entry.candidate.number for berth in self._berths.values() for entry in berth.waiting}
        queued |= {entry.candidate.number for _, entries in self._compiling.values() for entry in entries}
        queued |= {candidate.number for candidate in self._building.values()}
        return len(queued & self._candidates.keys())

    def _place(self, events: list[Event | Refused]) -> None:
        """Sends what is built to its program, and programs that are compiled to work."""
        for future in [future for future in self._building if future.done()]:
            candidate = self._building.pop(future)
            if candidate.number not in self._candidates:
                continue
            try:
                entries = future.result()
            except Refusal as refusal:
                self._refuse(candidate, str(refusal), events)
            except (Exception, SystemExit) as error:
                self._fail(candidate, error, events)
            else:
                for entry in entries:
                    if entry.over is None:
                        self._queue(entry)
                    else:
                        events.append(self._keeper.resumed(entry))
                        self._end_fold(entry, entry.over, time.monotonic(), events)
        for key in [key for key, (future, _) in self._compiling.items() if future.done()]:
            future_program, entries = self._compiling.pop(key)
            self._open(key, future_program, entries, events)

    def _queue(self, entry: Entry) -> None:
        if entry.key in self._berths:
            self._berths[entry.key].waiting.append(entry)
        elif entry.key in self._compiling:
            self._compiling[entry.key][1].append(entry)
        else:
            self._compiling[entry.key] = (self._builder.compile(entry), [entry])

    def _open(
        self, key: Key, future: "Future[AnyProgram]", entries: list[Entry], events: list[Event | Refused]
    ) -> None:
        try:
            program = future.result()
        except Refusal as refusal:
            self._builder.refuse(key.structure, str(refusal))
            for candidate in {entry.candidate.number: entry.candidate for entry in entries}.values():
                self._refuse(candidate, str(refusal), events)
            return
        berth = Berth(key, program, self._orders, self._watcher, self._turns)
        berth.waiting.extend(entry for entry in entries if entry.candidate.number in self._candidates)
        self._berths[key] = berth

    def _refuse(self, candidate: Candidate, reason: str, events: list[Event | Refused]) -> None:
        if candidate.number in self._candidates:
            self.drop(candidate.number)
            events.append(Refused(candidate, reason))

    def _fail(self, candidate: Candidate, error: BaseException, events: list[Event | Refused]) -> None:
        # Whatever a model of the user's raises ends this trial, with its reason, and no other.
        if candidate.number in self._candidates:
            self.drop(candidate.number)
            reason, detail = in_full(error)
            events.append(Outcome(candidate.number, failure=reason, detail=detail))

    # Calls

    def _launch(self, events: list[Event | Refused]) -> None:
        for berth in tuple(self._berths.values()):
            if not berth.call and berth.busy:
                with self._bearing(berth, events):
                    berth.launch(self._budget.epochs)
                    self._clock.began(berth.call.begun if berth.call else time.monotonic())
                    events += [self._keeper.resumed(entry) for entry in berth.entries if entry and entry.lane]

    @contextlib.contextmanager
    def _bearing(self, berth: Berth, events: list[Event | Refused]) -> Iterator[None]:
        """For a block in which a program may run out of memory: its trials then go on in fewer lanes."""
        try:
            yield
        except Exception as error:
            if not memory.is_out(error):
                raise
            self._without(berth, in_short(error), events)

    def _without(self, berth: Berth, error: str, events: list[Event | Refused]) -> None:
        """Gives up a program that has run out of memory."""
        del self._berths[berth.key]
        left = self._builder.halve(berth.lanes)
        reason = f"out of memory with {berth.lanes} lanes of a program"
        if left:
            _log.warning("%s: %d from now on (%s)", reason, left, error)
        inside = {entry.candidate.number for entry in berth.entries if entry} & self._candidates.keys()
        for number in sorted(inside):
            self.drop(number)
            alone = hidden(f"needs more memory than there is: {error}")
            events.append(Interrupted(number, reason) if left else Outcome(number, failure=alone))
        for entry in berth.waiting:
            if entry.candidate.number in self._candidates:
                self._queue(entry)

    def _take(self, berth: Berth, call: Call, events: list[Event | Refused]) -> None:
        """What a call brought: its epochs, and the lanes that ended in it."""
        report, ended = berth.finish(call)
        self._clock.ended(call.begun, ended, int(report.ran.sum()), call.epochs * berth.lanes)
        for epoch in range(call.epochs):
            for lane, entry in enumerate(call.entries):
                if entry is not None and berth.entries[lane] is entry and report.ran[epoch, lane]:
                    metrics = {name: float(values[epoch, lane]) for name, values in report.metrics.items()}
                    self._epoch(berth, lane, entry, metrics, events)
        over = [
            lane
            for lane, entry in enumerate(call.entries)
            if entry is not None and berth.entries[lane] is entry and not report.alive[lane]
        ]
        self._retire(berth, over, events)
        self._keeper.keep(berth)

    def _epoch(
        self, berth: Berth, lane: int, entry: Entry, metrics: dict[str, float], events: list[Event | Refused]
    ) -> None:
        broken = [name for name, value in metrics.items() if not math.isfinite(value)]
        number, epoch = entry.candidate.number, len(entry.curve)
        if broken:
            berth.free(lane)
            failure = f"diverged: {broken[0]} is {metrics[broken[0]]} in epoch {epoch}"
            if number in self._candidates:
                self.drop(number)
                events.append(Outcome(number, failure=failure))
            return
        entry.curve.append(metrics)
        objective = metrics[self._objective.metric]
        events.append(Progress(number, entry.fold, epoch, metrics, objective, entry.steps(epoch + 1)))

    def _retire(self, berth: Berth, lanes: Sequence[int], events: list[Event | Refused]) -> None:
        """Takes trainings that ended out of their lanes; their models are saved by the finisher."""
        for entry, values, best_epoch in berth.retire(lanes) if lanes else ():
            ended = time.monotonic()
            if len(self._folds) > 1:
                self._keeper.over(entry, best_epoch)
                self._end_fold(entry, best_epoch, ended, events)
            else:
                future = self._finisher.finish(entry, values, best_epoch, ended, berth.lanes)
                self._finishing[future] = entry.candidate.number

    def _end_fold(self, entry: Entry, best_epoch: int, ended: float, events: list[Event | Refused]) -> None:
        events += self._folds_done.end(entry, best_epoch, ended)
        if isinstance(events[-1], Outcome):
            self._keeper.forget(entry.candidate.number)
            del self._candidates[entry.candidate.number]

    # From lane to outcome

    def _finished(self, events: list[Event | Refused]) -> bool:
        """Hands on the outcomes of what the finisher has saved; whether there were any."""
        done = [future for future in self._finishing if future.done()]
        for future in done:
            candidate = self._candidates.get(self._finishing.pop(future))
            if candidate is None:
                continue
            if error := future.exception():
                self._fail(candidate, error, events)
                continue
            events.append(future.result())
            self._keeper.forget(candidate.number)
            del self._candidates[candidate.number]
        return bool(done)
