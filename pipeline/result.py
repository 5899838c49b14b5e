"""What a search found, and the table of it that closes every run."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.ensemble import Ensemble
from pipeline.evaluation.findings import Evaluation, Score
from pipeline.study import Finished
from pipeline.values import Member


@dataclass(frozen=True)
class Result:
    """What a search found.

    validation: the ensemble's scores by the task's metrics on the validation rows, which it was chosen by.
    evaluation: all that the test rows say. best: the best possible expected scores by metric, where they are
    known. registered: what became of it in the model registry. refit: whether champion and ensemble were
    trained again on training and validation rows together, before they were scored on the test rows.
    """

    study: str
    run_id: str
    champion: Finished
    ensemble: Ensemble[Member]
    validation: Mapping[str, float]
    evaluation: Evaluation
    best: Mapping[str, float]
    registered: str = ""
    refit: bool = False

    @property
    def scores(self) -> Mapping[str, Mapping[str, Score]]:
        """On the test rows, by model (baseline, champion, ensemble), then by the name of the score."""
        return self.evaluation.scores

    def own_scores(self, model: str) -> dict[str, float]:
        """A model's scores on the test rows by the task's metrics."""
        return {name: self.scores[model][name].value for name in self.evaluation.own}


def table(result: Result) -> list[list[str]]:
    """A header, then a row a model with its test scores by the task's metrics and their 95 % intervals."""
    weights, number = result.ensemble.weights, result.champion.number
    return rows_of(result.evaluation, number, weights, result.best, refit=result.refit)


def rows_of(
    evaluation: Evaluation,
    champion: int,
    weights: Mapping[Member, float],
    best: Mapping[str, float],
    *,
    refit: bool,
) -> list[list[str]]:
    """As `table`, of its parts. champion: the trial's number. weights: of the ensemble's members."""
    names = evaluation.own
    rows = [["model", *(f"test {name}" for name in names), "trained as"]]
    shares = ", ".join(f"{weight:.3g} × {member.described}" for member, weight in weights.items())
    again = "; trained again on all other rows" if refit else ""
    made_of = {
        "baseline": "the baseline settings",
        "champion": f"trial {champion}{again}",
        "ensemble": f"{shares}{again}",
    }
    for model, scores in evaluation.scores.items():
        own = [scores[name] for name in names]
        cells = [f"{score.value:.4f} [{score.low:.4f}, {score.high:.4f}]" for score in own]
        rows.append([model, *cells, made_of[model]])
    if best:
        cells = [f"{best[name]:.4f}" if name in best else "" for name in names]
        rows.append(["best possible", *cells, "known of generated rows"])
    return rows
