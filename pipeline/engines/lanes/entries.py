"""What trains in a lane, and which program it needs."""

import hashlib
import math
from dataclasses import dataclass, field

import keras

from pipeline.engines.lanes.state import State
from pipeline.engines.lanes.twin import Twin, Values
from pipeline.values import Candidate


@dataclass(frozen=True)
class Key:
    """What makes a program: the structure of its models, and what they are fed."""

    structure: str
    batch_size: int
    shuffle: bool
    learn_rows: int
    check_rows: int

    @property
    def number(self) -> int:
        """The program's own number, from which its row orders derive; the same on every machine."""
        return int(hashlib.sha256(repr(self).encode()).hexdigest()[:8], 16)


@dataclass
class Entry:
    """One training, of a candidate on one fold: built, then in a lane, then over.

    plain: the model as it was built. turns: each time that it came into a lane, its first epoch there, and
    the program's epoch that this was; more than one where it went on from checkpoints. started: when it would
    have begun without an interruption, on `time.monotonic()`. kept: when its last checkpoint was, likewise.
    curve: of its epochs so far.

    Of a training that goes on from a checkpoint: lane, what its lane is to be, until it is in one; seconds,
    that its trial had trained for; over, its best epoch, if it is over.
    """

    candidate: Candidate
    fold: int
    key: Key
    plain: keras.Model
    twin: Twin
    values: Values
    turns: list[tuple[int, int]] = field(default_factory=list)
    started: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)
    kept: float = -math.inf
    lane: State | None = None
    seconds: float = 0.0
    over: int | None = None

    def epoch_of(self, of_program: int) -> int:
        """Its own epoch, where the program is at this one."""
        begun, first = self.turns[-1]
        return max(0, begun + of_program - first)

    def steps(self, epochs: int) -> int:
        """What the optimiser of its model would count after so many epochs."""
        batches = -(-self.key.learn_rows // self.key.batch_size)
        return epochs * batches // (self.plain.optimizer.gradient_accumulation_steps or 1)
