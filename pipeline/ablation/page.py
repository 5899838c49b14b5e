"""An ablation's differences as tables, pictures and a page."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.ablation.differences import Difference
from pipeline.report import figures
from pipeline.report.figures import Span
from pipeline.report.page import Section, write
from pipeline.values import Metric

_NOTE = (
    "Each line is a difference of scores on the test rows between models that differ in one thing, trained"
    " from the same seeds: the mean over the seeds with its 95\u00a0% interval (Student's t of the pairs). It"
    " tells what other seeds would change, not what other rows would. Of twenty intervals one leaves out zero"
    " by chance. Nothing was chosen by these scores."
)
MISSING = "No seed finished, so these are not compared"

Found = Mapping[str, Sequence[Difference]]
"""Differences by the name of their group."""


def draw(
    folder: Path, title: str, found: Found, shown: Sequence[Metric], missing: Sequence[str] = ()
) -> list[Path]:
    """Draws `ablation.html` and a picture for each group into the folder; their paths, the page first.

    shown: the metrics that tables and pictures have. missing: arms without a score.
    """
    sections, pictures = [Section(note=_NOTE)], []
    if missing:
        sections.append(Section(note=f"{MISSING}: {', '.join(missing)}."))
    for number, (name, rows) in enumerate(found.items()):
        by_metric = {
            metric.name: (metric.direction, [_span(row) for row in rows if row.metric == metric.name])
            for metric in shown
        }
        file = folder / f"ablation_{number}_{name.replace(' ', '_')}.png"
        pictures.append(figures.save(figures.spans(by_metric), file))
        sections.append(Section(name.replace("_", " ").capitalize(), rows=table(rows, shown), picture=file))
    return [write(folder / "ablation.html", title, sections), *pictures]


def table(rows: Sequence[Difference], shown: Sequence[Metric]) -> list[list[str]]:
    """A header, then a row an arm: its score by each metric, and the difference with its interval."""
    head = ["arm", "change", "against"]
    for metric in shown:
        head += [f"test {metric.name}", "difference"]
    lines: dict[tuple[str, str], list[str]] = {}
    for metric in shown:
        for row in rows:
            if row.metric == metric.name:
                line = lines.setdefault((row.arm, row.against), [row.arm, row.change, row.against])
                line += [f"{row.score:.4f}", _shown(row)]
    for (arm, against), line in lines.items():
        line.append(str(next(row.seeds for row in rows if (row.arm, row.against) == (arm, against))))
    return [[*head, "seeds"], *lines.values()]


def as_csv(found: Found) -> str:
    """Every difference by every metric, a row each."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ("comparison", "arm", "change", "against", "metric", "score", "difference", "low", "high", "seeds")
    )
    for name, rows in found.items():
        for row in rows:
            numbers = (row.score, row.mean, row.low, row.high, row.seeds)
            writer.writerow((name, row.arm, row.change, row.against, row.metric, *numbers))
    return text.getvalue()


def as_metrics(found: Found) -> dict[str, float]:
    """Every difference by names that MLflow takes, in a folder for each group."""
    metrics: dict[str, float] = {}
    for group, rows in found.items():
        for row in rows:
            arm = row.arm.replace(" + ", " with ").replace(" - ", " without ")
            name = f"{group}/{arm} against {row.against}/test_{row.metric}"
            metrics[name] = row.mean
            if math.isfinite(row.low):
                metrics |= {f"{name}_low": row.low, f"{name}_high": row.high}
    return metrics


def _shown(row: Difference) -> str:
    if not math.isfinite(row.low):
        return f"{row.mean:+.4f}"
    return f"{row.mean:+.4f} [{row.low:+.4f}, {row.high:+.4f}]"


def _span(row: Difference) -> Span:
    return Span(row.arm, row.mean, row.low, row.high)
