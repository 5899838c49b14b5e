"""Reads a search-space file and checks all of it: what is searched, the budget, the objective, the baseline.

A file is TOML, because it is in Python's standard library and `1e-4` is a number there. Every fault of a
file is found before the first error is raised, and each names file, table, key, rule and value.
"""

import json
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution, distribution_to_json

from pipeline import space_tables
from pipeline.errors import UserError
from pipeline.ranges import shown
from pipeline.settings import Parameter
from pipeline.space_tables import Comparison
from pipeline.values import Budget, Metric, Objective, Setting, Settings

_TABLES = ("space", "budget", "objective", "baseline", "variants", "comparisons")


@dataclass(frozen=True)
class Space:
    """A checked search-space file.

    searched: what the sampler draws. fixed: settings with one value. baseline: the published model's
    settings, run as trial 0, or None. variants: further published settings of the same model. comparisons:
    of those, for an ablation.
    `complete` fills what is left out with the parameters' defaults.
    """

    file: Path
    text: str
    parameters: tuple[Parameter, ...]
    searched: Mapping[str, BaseDistribution]
    fixed: Settings
    budget: Budget
    objective: Objective
    baseline: Settings | None
    variants: Mapping[str, Settings]
    comparisons: tuple[Comparison, ...] = ()

    def complete(self, suggested: Settings) -> Settings:
        """Every setting the task reads, for values that the sampler drew."""
        return {**self._defaults(), **self.fixed, **suggested}

    def published(self, settings: Settings) -> Settings:
        """Every setting the task reads, those not given at their defaults; fixed values don't count here."""
        return {**self._defaults(), **settings}

    def with_epochs(self, epochs: int | None) -> "Space":
        """The same space with another longest training, if one is given."""
        return self if epochs is None else replace(self, budget=replace(self.budget, epochs=epochs))

    def without(self, names: Collection[str]) -> "Space":
        """The same space of a model that does not read these settings."""
        if not names:
            return self

        def kept(settings: Mapping[str, Any]) -> dict[str, Any]:
            return {name: value for name, value in settings.items() if name not in names}

        return replace(
            self,
            parameters=tuple(parameter for parameter in self.parameters if parameter.name not in names),
            searched=kept(self.searched),
            fixed=kept(self.fixed),
            baseline=None if self.baseline is None else kept(self.baseline),
            variants={name: kept(settings) for name, settings in self.variants.items()},
        )

    def identity(self) -> dict[str, str]:
        """What a study is tied to, as texts that can be compared and shown."""
        return {
            **{f"[space] {name}": _shown_distribution(drawn) for name, drawn in self.searched.items()},
            **{f"[space] {name}": json.dumps(value) for name, value in self.fixed.items()},
            **{f"[budget] {key}": json.dumps(value) for key, value in vars(self.budget).items()},
            "[objective]": f"{self.objective.direction} {self.objective.metric}",
            "[baseline]": json.dumps(self.baseline, sort_keys=True),
        }

    def _defaults(self) -> dict[str, Setting]:
        return {parameter.name: parameter.default for parameter in self.parameters}


def file_of(task: str) -> Path:
    """The task's own search-space file: in an installed package inside of it, in a checkout beside it."""
    package = Path(__file__).parent
    folder = package if (package / "search_spaces").is_dir() else package.parent
    return folder / "search_spaces" / f"{task}.toml"


def read(file: Path, parameters: Sequence[Parameter], metrics: Sequence[Metric]) -> Space:
    """Reads and checks a file against what its task reads and measures.

    Raises:
        UserError: with every fault of the file, one a line.
    """
    return parse(text_of(file), file, parameters, metrics)


def parse(text: str, file: Path, parameters: Sequence[Parameter], metrics: Sequence[Metric]) -> Space:
    """As `read`, of a text that was read before from `file`."""
    tables = _tables_of(text, file)
    known = {parameter.name: parameter for parameter in parameters}
    faults: list[str] = []
    for name in tables:
        if name not in _TABLES:
            faults.append(f"[{name}]: unknown table; the tables are {', '.join(_TABLES)}")
    for name in ("space", "budget", "objective"):
        if name not in tables:
            faults.append(f"[{name}]: this table is needed")
    sections = {name: _section(tables, name, faults) for name in _TABLES}

    before = len(faults)
    searched, fixed = space_tables.space(sections["space"], known, faults)
    if "space" in tables and not searched and len(faults) == before:
        faults.append("[space]: nothing is searched; give at least one range or list of choices")
    faults += space_tables.unread(searched, fixed, known)
    budget = space_tables.budget(sections["budget"], metrics, faults) if "budget" in tables else None
    in_loss = [
        name
        for name, spec in sections["space"].items()
        if isinstance(spec, dict) and name in known and known[name].in_loss
    ]
    objective = (
        space_tables.objective(sections["objective"], metrics, in_loss, faults)
        if "objective" in tables
        else None
    )
    baseline = (
        space_tables.settings(sections["baseline"], "baseline", known, faults)
        if "baseline" in tables
        else None
    )
    variants = space_tables.variants(sections["variants"], known, faults)
    arms = [*variants, *(["baseline"] if baseline is not None else [])]
    comparisons = space_tables.comparisons(sections["comparisons"], arms, faults)
    if faults or budget is None or objective is None:
        raise UserError.of(f"{file} {fault}" for fault in faults)
    return Space(
        file,
        text,
        tuple(parameters),
        searched,
        fixed,
        budget,
        objective,
        baseline,
        variants,
        comparisons,
    )


def text_of(file: Path) -> str:
    """A space file's text; a UserError says why it cannot be read."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{file}: there is no such search-space file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: a search-space file is UTF-8 text, but byte {error.start} is not") from None
    except OSError as error:
        raise UserError(f"{file}: the search-space file cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{str(file)!r}: no search-space file can have this name: {error}") from None


def _tables_of(text: str, file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise UserError(f"{file}: not a TOML file: {error}") from None


def _section(tables: Mapping[str, Any], name: str, faults: list[str]) -> Mapping[str, Any]:
    section = tables.get(name, {})
    if isinstance(section, dict):
        return section
    faults.append(f"[{name}]: must be a table, but is {shown(section)}")
    return {}


def _shown_distribution(drawn: BaseDistribution) -> str:
    content = json.loads(distribution_to_json(drawn))["attributes"]
    return json.dumps(
        {key: value for key, value in content.items() if value is not None and value is not False}
    )
