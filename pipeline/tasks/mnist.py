"""MNIST: LeNet on 70,000 hand-written digits."""

from pipeline.datasets import keras_sets
from pipeline.metrics import CLASSIFICATION
from pipeline.tasks import lenet
from pipeline.tasks.task import Task

TASK = Task(
    name="mnist",
    parameters=lenet.PARAMETERS,
    metrics=CLASSIFICATION,
    load=keras_sets.mnist,
    build=lenet.builder("mnist", white=255.0),
)
