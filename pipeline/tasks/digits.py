"""Digits: the LeNet of `mnist` on scikit-learn's 8 x 8 digits; real images with no download."""

from pipeline.datasets import bundled
from pipeline.metrics import CLASSIFICATION
from pipeline.tasks import lenet
from pipeline.tasks.task import Task

TASK = Task(
    name="digits",
    parameters=lenet.PARAMETERS,
    metrics=CLASSIFICATION,
    load=bundled.digits,
    build=lenet.builder("digits", white=16.0),
)
