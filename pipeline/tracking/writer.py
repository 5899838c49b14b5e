"""What writes the records of trials into MLflow, in batches.

A point logged alone costs fifty times one logged in a batch, so points wait until some seconds have passed,
or their trial ends. Whatever is written a second time, as it is not known whether it was written, changes
nothing: points, params and tags are the same, and a run is looked for before it is made again.
"""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlflow.entities import Metric, Param, RunTag
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from pipeline.errors import RunError
from pipeline.tracking.connection import Client, is_outage, outage
from pipeline.tracking.curves import CurveFiles, Point
from pipeline.tracking.outbox import Outbox, Record
from pipeline.tracking.parent import REASON

# A request takes 1,000 metrics, 100 params and 100 tags.
_METRICS_A_REQUEST = 1000
_PARAMS_A_REQUEST = 100
_FLUSH_SECONDS = 5.0
_LOOK_SECONDS = 0.1
_RECORDS_AT_ONCE = 1000
# A store that does not answer is asked again after one second, and then after up to so many.
_MOST_PAUSE_SECONDS = 15.0


@dataclass
class _Child:
    """A trial's run while it is written; metrics wait for the next request.

    curves: by fold, None without folds, where they become files.
    """

    run_id: str
    metrics: list[Metric] = field(default_factory=list)
    curves: dict[int | None, list[Point]] = field(default_factory=dict)


class Writer:
    """Writes trials as child runs of a parent; times are milliseconds since 1970, as in MLflow.

    Args:
        client: of the store.
        parent: the parent's run id.
        experiment: the parent's.
        outbox: where the records come from.
        again: whether some of its records may have been written by a process that is gone.
    """

    def __init__(
        self, client: Client, parent: str, experiment: str, outbox: Outbox, *, again: bool = False
    ) -> None:
        self._client, self._parent, self._experiment = client, parent, experiment
        self._outbox, self._again = outbox, again
        self._tried: tuple[int, int] | None = None
        self._children: dict[int, _Child] = {}
        self._curve_files: CurveFiles | None = None

    def write(self, record: Record) -> None:
        """Does what a record says; raises what the store raises, and may then be called again."""
        methods: dict[str, Callable[..., None]] = {
            "keep": self._keep,
            "start": self._start,
            "epoch": self._epoch,
            "tag": self._tag,
            "end": self._end,
        }
        methods[record.method](record.number, *record.arguments)

    def flush(self) -> None:
        """Writes every point that waits."""
        for child in self._children.values():
            self._flush(child)

    def unfinished(self) -> Sequence[int]:
        """The trials whose records are needed until their end: theirs, and what is said of all."""
        return (-1, *self._children) if self._curve_files else ()

    def _keep(self, _: int, files: Mapping[str, Any]) -> None:
        """What every trial gets of its curves as files."""
        self._curve_files = CurveFiles(**{**files, "own": tuple(files["own"])})

    def _start(
        self, number: int, name: str, settings: Mapping[str, Any], tags: Mapping[str, str], started: int
    ) -> None:
        """A trial begins."""
        run_id = self._outbox.run_of(number, started) or self._made(number, name, tags, started)
        self._outbox.set_run(number, started, run_id)
        self._children[number] = _Child(run_id)
        params = [Param(key, str(value)) for key, value in settings.items()]
        for place in range(0, len(params), _PARAMS_A_REQUEST):
            self._client.log_batch(run_id, params=params[place : place + _PARAMS_A_REQUEST])

    def _made(self, number: int, name: str, tags: Mapping[str, str], started: int) -> str:
        """A trial's run, new unless it was made and that could not be noted, or its answer was lost."""
        if self._again or self._tried == (number, started):
            wanted = [f"tags.`{key}` = '{value}'" for key, value in tags.items()]
            wanted += [
                f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{self._parent}'",
                f"attributes.start_time = {started}",
            ]
            found = self._client.search_runs([self._experiment], " and ".join(wanted), max_results=1)
            if found:
                return str(found[0].info.run_id)
        all_tags = {MLFLOW_PARENT_RUN_ID: self._parent, **tags}
        self._tried = number, started
        run = self._client.create_run(self._experiment, start_time=started, tags=all_tags, run_name=name)
        return str(run.info.run_id)

    def _child(self, number: int) -> _Child:
        if number not in self._children:
            # Its start was written by a process that is gone.
            self._children[number] = _Child(self._outbox.run_of(number))
        return self._children[number]

    def _epoch(
        self,
        number: int,
        metrics: Mapping[str, float],
        epoch: int,
        now: int,
        fold: int | None = None,
        steps: int = 0,
    ) -> None:
        """A trial's epoch is done. fold: None without folds. steps: the optimiser's, so far."""
        child, prefix = self._child(number), _prefix(fold)
        child.metrics.extend(Metric(prefix + name, value, now, epoch) for name, value in metrics.items())
        if self._curve_files:
            child.curves.setdefault(fold, []).append(Point(epoch, steps, now / 1000, metrics))

    def _tag(self, number: int, tags: Mapping[str, str]) -> None:
        """What else marks a trial, as is known once it trains."""
        run_tags = [RunTag(key, value) for key, value in tags.items()]
        self._client.log_batch(self._child(number).run_id, tags=run_tags)

    def _end(
        self,
        number: int,
        status: str,
        reason: str,
        metrics: Mapping[str, float],
        detail: str,
        ended: int,
        files: str,
    ) -> None:
        """A trial ends. files: name of the folder whose content becomes its artifacts; detail becomes
        `traceback.txt`.
        """
        child = self._child(number)
        self._flush(child)
        last = [Metric(name, float(value), ended, 0) for name, value in metrics.items()]
        for place in range(0, len(last), _METRICS_A_REQUEST):
            self._client.log_batch(child.run_id, metrics=last[place : place + _METRICS_A_REQUEST])
        if files:
            folder = self._outbox.files(files)
            for fold, curve in child.curves.items():
                if self._curve_files:
                    self._curve_files.write(curve, folder / _prefix(fold))
            # Where a process that is gone has written it all, nothing may be left of it.
            if folder.exists():
                self._client.log_artifacts(child.run_id, str(folder))
        if detail:
            self._client.log_text(child.run_id, detail, "traceback.txt")
        if reason:
            self._client.log_batch(child.run_id, tags=[RunTag(REASON, reason)])
        self._client.set_terminated(child.run_id, status, ended)
        del self._children[number]

    def _flush(self, child: _Child) -> None:
        while child.metrics:
            self._client.log_batch(child.run_id, metrics=child.metrics[:_METRICS_A_REQUEST])
            del child.metrics[:_METRICS_A_REQUEST]


def _prefix(fold: int | None) -> str:
    """Of all that is a fold's."""
    return "" if fold is None else f"fold_{fold}/"


def obey(
    writer: Writer,
    outbox: Outbox,
    over: Callable[[], bool],
    say: Callable[[str], None],
    given_up: Callable[[], bool] = lambda: False,
) -> None:
    """Writes what is in the outbox, in its order, until `over()` and it is empty.

    A store that does not answer is asked again and again; any other fault is raised.

    Args:
        writer: of the outbox's records.
        outbox: of which is forgotten what the store has.
        over: whether nothing more is put in.
        say: takes a line for people.
        given_up: whether to leave all that a store which does not answer has not got.
    """
    place, flushed, patient = 0, time.monotonic(), _Outage(say, outbox, given_up)
    while True:
        last = over()
        records = outbox.after(place, _RECORDS_AT_ONCE)
        for place_of, record in records:
            if not patient.borne(lambda record=record: writer.write(record)):  # type: ignore[misc]
                return
            place = place_of
        if (last and not records) or time.monotonic() - flushed > _FLUSH_SECONDS:
            if not patient.borne(writer.flush):
                return
            outbox.done(place, writer.unfinished() if not (last and not records) else ())
            flushed = time.monotonic()
            if last and not records:
                return
        if not records:
            time.sleep(_LOOK_SECONDS)


class _Outage:
    """Bears a store that does not answer for a while, and says so once."""

    def __init__(self, say: Callable[[str], None], outbox: Outbox, given_up: Callable[[], bool]) -> None:
        self._say, self._outbox, self._given_up = say, outbox, given_up

    def borne(self, act: Callable[[], None]) -> bool:
        """Acts, as often as it takes; false if it was given up."""
        began, pause = 0.0, 1.0
        while True:
            try:
                act()
            except RunError as error:
                if not is_outage(error):
                    raise
                if not began:
                    began = time.monotonic()
                    self._say(
                        f"{outage(error)}; what is recorded waits on disk, and is written when it answers"
                        " again"
                    )
                ends = time.monotonic() + pause
                while time.monotonic() < ends:
                    if self._given_up():
                        return False
                    time.sleep(_LOOK_SECONDS)
                pause = min(2 * pause, _MOST_PAUSE_SECONDS)
            else:
                if began:
                    waiting = 0
                    with contextlib.suppress(RunError):
                        waiting = self._outbox.waiting()
                    self._say(
                        f"MLflow answers again after {time.monotonic() - began:.0f} s; {waiting} records are"
                        " written now"
                    )
                return True
