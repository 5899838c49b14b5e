"""This project inside of KerasTuner: any task as a HyperModel, and Optuna as an Oracle.

from pipeline.kerastuner import OptunaOracle, TaskHyperModel
tuner = keras_tuner.Tuner(OptunaOracle("val_accuracy", max_trials=20), TaskHyperModel("iris"))
tuner.search()
"""

from pipeline.kerastuner.hypermodel import TaskHyperModel as TaskHyperModel
from pipeline.kerastuner.oracle import OptunaOracle as OptunaOracle
