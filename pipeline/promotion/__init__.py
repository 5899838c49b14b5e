"""Which model of a study enters the registry, and whether it becomes the champion there."""

from pipeline.promotion.entering import MODEL, REGISTERED, Entrant, enter
from pipeline.promotion.jury import Jury
from pipeline.promotion.learned import learned_from

__all__ = ["MODEL", "REGISTERED", "Entrant", "Jury", "enter", "learned_from"]
