"""Digits: the LeNet of `mnist` on scikit-learn's 8 x 8 digits; real images with no download."""

from pipeline.datasets import bundled
from pipeline.forms import Drawing, Pictures
from pipeline.metrics import CLASSIFICATION
from pipeline.tasks import lenet
from pipeline.tasks.task import Task

TASK = Task(
    name="digits",
    parameters=lenet.PARAMETERS,
    metrics=CLASSIFICATION,
    load=bundled.digits,
    build=lenet.builder("digits", white=16.0),
    # The scanned digits fill their frame (https://archive.ics.uci.edu/dataset/80).
    form=lambda data: Pictures(white=16.0, drawing=Drawing(box=8, centre="box")),
)
