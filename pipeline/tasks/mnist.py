"""MNIST: LeNet on 70,000 hand-written digits."""

from pipeline.datasets import keras_sets
from pipeline.forms import Drawing, Pictures
from pipeline.metrics import CLASSIFICATION
from pipeline.tasks import lenet
from pipeline.tasks.task import Task

TASK = Task(
    name="mnist",
    parameters=lenet.PARAMETERS,
    metrics=CLASSIFICATION,
    load=keras_sets.mnist,
    build=lenet.builder("mnist", white=255.0),
    # As the set was made: 20 pixels, the centre of mass in the middle of 28 (Y. LeCun et al., 1998, III.A).
    form=lambda data: Pictures(drawing=Drawing(box=20, centre="mass")),
)
