"""What a search is begun with: the best settings of an earlier study of the same task.

New rows of the same kind seldom want quite other settings: what was best on the last ones is tried right
after the baseline, and the sampler learns from it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline import ranges, storage
from pipeline import study_opening as studies
from pipeline.errors import UserError
from pipeline.space import Space
from pipeline.study import Start
from pipeline.values import Settings

# Few, as they are all alike where the earlier study had found its way.
_MOST = 5
_TOLD = 3


@dataclass(frozen=True)
class WarmStart:
    """What to begin with: settings of an earlier study, best first. left_out: why others are not among them.

    study: the earlier one's name.
    """

    study: str
    starts: tuple[Start, ...]
    left_out: tuple[str, ...]

    @property
    def told(self) -> tuple[str, ...]:
        """What a person is told of it, a line each."""
        labels = ", ".join(start.label for start in self.starts)
        lines = [f"warm_start: tried first: {labels}" if labels else "warm_start: nothing can be tried first"]
        if self.left_out:
            more = len(self.left_out) - _TOLD
            shown = "; ".join(self.left_out[:_TOLD]) + (f"; and {more} more" if more > 0 else "")
            lines.append(f"warm_start: left out of study {self.study}: {shown}")
        return tuple(lines)


def check(asked: str, study: str, sampler: str) -> None:
    """Raises UserError, before anything is opened, for what makes no sense.

    Args:
        asked: the name of the earlier study.
        study: of the study that is to begin.
        sampler: the name of its sampler.
    """
    if asked == study:
        raise UserError(f"warm_start: must name another study, but {asked} is the one that is searched")
    if sampler == "grid":
        raise UserError("warm_start: has no use with sampler=grid, which tries every point; leave one out")


def is_had(earlier: str, url: str, study: str) -> bool:
    """Whether the study has been given the settings of the earlier one, which then need not be there."""
    if not storage.is_there(url, study):
        return False
    with storage.connected(url, study) as store:
        return studies.has_started_from(study, store, earlier)


def find(name: str, url: str, task: str, space: Space) -> WarmStart:
    """The best settings of the study `name` that `space` has room for, each once.

    Args:
        name: of the earlier study.
        url: of the storage that it lies in; its own journal file if empty.
        task: what both studies must be of.
        space: of the study that is to begin.

    Raises:
        UserError: there is no such study, it is of another task, or no trial that its sampler drew completed.
    """
    missing = f"warm_start: there is no study named {name!r}"
    if not storage.is_there(url, name):
        raise UserError(f"{missing} in {storage.home(name).parent}")
    with storage.connected(url, name) as store:
        if not studies.is_there(name, store):
            raise UserError(f"{missing} in this storage")
        drawn = studies.drawn_best_first(name, store, task)
    if not drawn:
        raise UserError(f"warm_start: no trial that the sampler drew completed in study {name}")
    found: list[Start] = []
    left_out: list[str] = []
    for number, settings in drawn:
        if fault := _fault(settings, space):
            left_out.append(f"trial {number} ({fault})")
            continue
        chosen = {setting: settings[setting] for setting in space.searched}
        if all(chosen != start.drawn for start in found):
            found.append(Start(f"{name}/{number}", chosen))
        if len(found) == _MOST:
            break
    return WarmStart(name, tuple(found), tuple(left_out))


def _fault(settings: Settings, space: Space) -> str:
    """Why the space cannot make these settings; empty if it can."""
    unsearched: Mapping[str, object] = space.complete({})
    for name, distribution in space.searched.items():
        if name not in settings:
            return f"it has no {name}"
        if not ranges.holds(distribution, settings[name]):
            return f"{name} = {settings[name]} is none of what is searched here"
    for name, value in settings.items():
        if name in space.searched:
            continue
        if name not in unsearched:
            return f"{name} = {value} is no setting here"
        if unsearched[name] != value:
            return f"{name} = {value}, but {unsearched[name]} here"
    return ""
