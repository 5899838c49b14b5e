"""The ensemble of the top models: which members with which weights, and one Keras model of them."""

from pipeline.ensemble.model import as_model
from pipeline.ensemble.selection import Curve, Ensemble, Judge, blend, select

__all__ = ["Curve", "Ensemble", "Judge", "as_model", "blend", "select"]
