"""The two errors that end a command with one message instead of a traceback."""

from collections.abc import Iterable


class UserError(ValueError):
    """What the user gave cannot be used; found before the first trial. Exit code 2.

    The message states rule, value and place. Several faults stand one a line.
    """

    exit_code = 2

    @classmethod
    def of(cls, faults: Iterable[str]) -> "UserError":
        """One error for all the faults of one input, in the order they stand there."""
        return cls("\n".join(faults))


class RunError(RuntimeError):
    """The run itself failed after it had started. Exit code 1."""

    exit_code = 1
