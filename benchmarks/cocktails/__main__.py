"""Tables by a published protocol: this pipeline, tuned gradient boosting, and what a paper reports.

    python -m benchmarks.cocktails --tables DIR --minutes 3 --output cocktails.json

Each CSV file of the folder whose last column is `target` is searched by `task=table` with `refit=true`, and
then boosting is tuned on it, each for so many minutes of all cores, one after the other. Both split the rows
as A. Kadra et al., "Well-tuned Simple Nets Excel on Tabular Datasets" (arXiv 2106.11189) do. Scores are
balanced accuracies of the test rows, which neither sees before its last model is made. The file has for each
set `{"ours": 0 to 1, "boosting": 0 to 1, "seconds": of ours}`, or `{"failed": why}`; the table goes to the
terminal. The exit code is 1 if a set failed.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import searches
from pipeline.benchmark import machine
from pipeline.benchmark.speed import table
from pipeline.datasets import table_files

# Test balanced accuracy in % (Kadra et al. 2021): MLP, MLP with dropout, the searched cocktail MLP+C, tuned
# XGBoost; up to 4 days on 20 cores for each set.
PUBLISHED: Mapping[str, tuple[float, float, float, float]] = {
    "blood-transfusion-service-center": (67.836, 68.421, 67.617, 62.281),
    "car": (97.442, 99.690, 99.587, 92.376),
    "australian": (86.268, 86.268, 87.088, 89.717),
    "credit-g": (69.405, 68.095, 74.643, 68.929),
    "vehicle": (83.766, 82.603, 82.576, 74.973),
    "segment": (94.805, 94.589, 93.723, 93.723),
}
_NAMES = ("MLP", "MLP + dropout", "MLP+C", "XGBoost")
# Of the time: what follows the last trial. Seconds at least, and a share.
_CLOSING_SECONDS, _CLOSING_SHARE = 40.0, 0.12
_ENOUGH_TRIALS = 2_000
_METRIC = "ensemble_test_balanced_accuracy"


def main(arguments: Sequence[str] | None = None) -> int:
    """Searches every table, both ways, and writes the scores."""
    parser = argparse.ArgumentParser("python -m benchmarks.cocktails", description=__doc__)
    parser.add_argument("--tables", type=Path, required=True, help="folder of CSV files")
    parser.add_argument("--minutes", type=float, default=10.0, help="for each set and each of both")
    parser.add_argument("--output", type=Path, required=True, help="JSON file")
    parser.add_argument("--only", help="names of sets, with commas between")
    given = parser.parse_args(arguments)
    _check(given.minutes, given.output)
    files, failed = _files(given.tables, given.only)
    found: dict[str, dict[str, float]] = {}
    _write(given.output, found, failed)
    for file in files:
        try:
            found[file.stem] = _both(file, given.minutes * 60)
        except searches.Failed as error:
            failed[file.stem] = error.reason
        print(f"{file.stem}: {found.get(file.stem) or failed[file.stem]}", file=sys.stderr, flush=True)
        # After each set: a run that is cut off has what it found.
        _write(given.output, found, failed)
    print(f"{machine.described()}\n{given.minutes:g} minutes a set\n")
    if found:
        print(report(found))
    for name, why in failed.items():
        print(f"failed: {name}: {why}")
    return 1 if failed else 0


def _check(minutes: float, output: Path) -> None:
    """Sees to what would else be found out after the first set's minutes."""
    if minutes * 60 <= _CLOSING_SECONDS:
        raise SystemExit(f"--minutes: must be more than {_CLOSING_SECONDS / 60:.1f}, but is {minutes:g}")
    if output.is_dir() or not os.access(output.parent, os.W_OK):
        raise SystemExit(f"--output: {output}: there is no folder {output.parent} that can be written to")


def _write(output: Path, found: Mapping[str, Mapping[str, float]], failed: Mapping[str, str]) -> None:
    sets = {**found, **{name: {"failed": why} for name, why in failed.items()}}
    output.write_text(json.dumps(sets, indent=2) + "\n", encoding="utf-8")


def _files(folder: Path, only: str | None) -> tuple[list[Path], dict[str, str]]:
    """The tables, by name, and why others cannot be read.

    Those that do not end with a column `target` are told and left out.
    """
    if not folder.is_dir():
        raise SystemExit(f"--tables: {folder}: there is no such folder")
    there = {file.stem: file for file in sorted(folder.glob("*.csv"))}
    wanted = only.split(",") if only else list(there)
    if unknown := [name for name in wanted if name not in there]:
        raise SystemExit(f"--only: {folder}: has no {', '.join(f'{name}.csv' for name in unknown)}")
    files, failed = [], dict[str, str]()
    for name, file in there.items():
        if name not in wanted:
            continue
        try:
            _, names = table_files.heading(file)
        except (OSError, ValueError) as error:
            failed[name] = f"its names of columns cannot be read: {error}"
            print(f"{name}: {failed[name]}", file=sys.stderr)
            continue
        if names[-1] == "target":
            files.append(file)
        else:
            print(f"left out: {file.name}: its last column is {names[-1]!r}", file=sys.stderr)
    if not files and not failed:
        raise SystemExit(f"--tables: {folder}: has no CSV file whose last column is target")
    return files, failed


def _both(file: Path, seconds: float) -> dict[str, float]:
    # Our own folder, so that no study of before is gone on with; compiled programs are kept nowhere.
    with tempfile.TemporaryDirectory(prefix="regatta-") as name:
        folder = Path(name)
        environment = searches.environment(folder, folder / "cache")
        timeout = seconds - max(_CLOSING_SECONDS, _CLOSING_SHARE * seconds)
        more = (
            f"--data={file.resolve()}",
            "--target=target",
            "--problem=classification",
            f"--timeout={timeout:.0f}",
            "--refit=true",
            "--export=none",
        )
        took, _ = searches.timed(searches.command(_ENOUGH_TRIALS, "table", *more), folder, environment)
        ours = _score(folder)
        boosted = [sys.executable, "-m", "benchmarks.cocktails.boosting"]
        boosted += [f"--table={file.resolve()}", f"--seconds={seconds}"]
        _, told = searches.timed(boosted, folder, environment | {"OMP_NUM_THREADS": str(os.cpu_count())})
    return {
        "ours": ours,
        "boosting": json.loads(told.splitlines()[-1])["score"],
        "seconds": took,
    }


def _score(folder: Path) -> float:
    """The test score of a folder's only search.

    Raises:
        Failed: it ended without one.
    """
    found = searches.metrics(folder, [_METRIC])
    if _METRIC not in found:
        raise searches.Failed("the search ended before a trial had a model: give it more minutes")
    return found[_METRIC]


def report(found: Mapping[str, Mapping[str, float]]) -> str:
    """The scores beside the published ones, and how often ours is at or above each, as a table."""
    lines = []
    ranks: list[float] = []
    for name, scores in found.items():
        published = PUBLISHED.get(name)
        cells = [f"{100 * scores['ours']:.2f}", f"{100 * scores['boosting']:.2f}"]
        cells += [f"{score:.2f}" for score in published] if published else [""] * len(_NAMES)
        lines.append([name, *cells, f"{scores['seconds']:.0f}"])
        others = [100 * scores["boosting"], *(published or ())]
        ranks.append(1 + sum(other > 100 * scores["ours"] for other in others))
    above_boosting = sum(scores["ours"] > scores["boosting"] for scores in found.values())
    known = [name for name in found if name in PUBLISHED]
    above_paper = sum(100 * found[name]["ours"] >= PUBLISHED[name][2] for name in known)
    heads = ["set", "this pipeline", "tuned boosting", *(f"{name} (paper)" for name in _NAMES), "seconds"]
    return (
        f"{table(heads, lines)}\n\n"
        f"above tuned boosting on {above_boosting} of {len(found)} sets; at or above the paper's MLP+C on"
        f" {above_paper} of {len(known)}; mean rank {sum(ranks) / len(ranks):.2f}"
    )


if __name__ == "__main__":
    raise SystemExit(main())
