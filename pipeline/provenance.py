"""What made a study: versions, commit, space, data, settings; written to its parent run."""

import importlib.metadata
import json
from pathlib import Path

from pipeline import samplers
from pipeline.engines import choice
from pipeline.job import Job
from pipeline.tracking.parent import ENGINE, STUDY, TASK, Parent

# The last of what is written once: a run that was ended before it gets the rest the next time.
_ORIGIN, _COMPLETE = "pipeline.origin", "complete"
_PACKAGES = ("keras", "tensorflow", "jax", "optuna", "mlflow", "numpy", "pandas", "scikit-learn")


def record_program(parent: Parent) -> None:
    """What made a run: versions of packages and the git commit."""
    versions = {package: _version(package) for package in _PACKAGES}
    versions = {package: version for package, version in versions.items() if version}
    parent.tag({f"version.{package}": version for package, version in versions.items()})
    parent.tag_program(Path(__file__))
    parent.text(json.dumps(versions, indent=2), "versions.json")


def record_origin(job: Job) -> None:
    """What the study is and what made it; what cannot change is logged once, as params."""
    parent, space = job.parent, job.space
    parent.tag(
        {
            STUDY: job.study.name,
            TASK: job.task.name,
            ENGINE: choice.name_of(job.asked["engine"]),
            "pipeline.sampler": samplers.described(job.asked["sampler"], space.searched),
            "pipeline.pruner": job.asked["pruner"],
            "pipeline.seed": str(job.asked["seed"]),
        }
    )
    record_program(parent)
    if parent.tag_of(_ORIGIN) == _COMPLETE:
        return
    params = {
        "objective.metric": space.objective.metric,
        "objective.direction": space.objective.direction,
        **{f"budget.{key}": str(value) for key, value in vars(space.budget).items()},
        "study.folds": str(len(job.folds)),
        "study.size": str(job.asked["size"]),
        "study.precision": str(job.asked["precision"]),
    }
    # Those of a study from before this note are there, perhaps in other words.
    there = parent.param_names()
    parent.params({name: value for name, value in params.items() if name not in there})
    parent.data(job.data)
    parent.text(space.text, f"search_space/{space.file.name}")
    parent.tag({_ORIGIN: _COMPLETE})


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
