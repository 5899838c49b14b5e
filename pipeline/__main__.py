"""The command line: arguments in, exit code out.

    python -m pipeline search --task iris --trials 12

Exit codes: 0 done; 1 the run failed; 2 something given cannot be used, and nothing was trained; 75 another
process has the study; 130 interrupted, 143 terminated.
"""

import argparse
import errno
import gc
import logging
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from typing import NoReturn

from pipeline import launcher, options
from pipeline.errors import RunError, UserError
from pipeline.secrets import HIDING, first_line, hidden, redacted
from pipeline.stops import END_SECONDS, Stops

# An exit code above it says which signal ended the program.
_SIGNALLED = 128


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; its exit code."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    for handler in logging.getLogger().handlers:
        handler.addFilter(HIDING)
    stops = Stops(lambda: _gave_up(_SIGNALLED + stops.signal))
    launcher.watch()
    command, given = "", dict[str, object]()
    try:
        command, given = _parse(sys.argv[1:] if arguments is None else arguments)
        _run(command, given)
    except (UserError, RunError) as error:
        lines = hidden(str(error)).splitlines()
        print("\n".join(f"pipeline: {line}" for line in lines), file=sys.stderr, flush=True)
        return error.exit_code
    except KeyboardInterrupt:
        then = "goes on with the study"
        if command == "ablate":
            then = "begins anew, as scores are made last"
        elif command == "clean" and given.get("apply") == "true":
            then = "removes the rest"
        elif command in ("clean", "predict", "report"):
            then = "begins anew"
        print(f"pipeline: interrupted; the same command {then}", file=sys.stderr, flush=True)
        return _SIGNALLED + stops.signal
    except BrokenPipeError:
        # Whoever read the output has read enough, as `head` does; Python must not try again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            place = f" ({error.filename})" if error.filename else ""
            said = f"the disk is full{place}: where there is room again, the same command goes on"
        else:
            said = f"failed: {type(error).__name__}: {first_line(error)}{_kept_traceback()}"
        print(f"pipeline: {hidden(said)}", file=sys.stderr, flush=True)
        return 1
    finally:
        stops.restore()
    return 0


def _run(command: str, given: dict[str, object]) -> None:
    from pipeline.entry import run

    try:
        run(command, given)
    except SystemExit as error:
        # Of the user's code, at whatever place: what it left undone must not look like what is done.
        raise RunError(f"failed: code that it runs ends the program: exit code {error.code}") from None


def _gave_up(code: int) -> None:
    """Ends the process as `kill -9` would, which loses nothing either."""
    print(
        f"pipeline: interrupted; what waits still after {END_SECONDS:.0f} s is left as it is: the same"
        " command puts it in order and goes on",
        file=sys.stderr,
        flush=True,
    )
    os._exit(code)


def _kept_traceback() -> str:
    """Keeps the traceback of a fault of this program, and does not throw it at the user; where it is."""
    try:
        with tempfile.NamedTemporaryFile("w", prefix="regatta-", suffix=".txt", delete=False) as file:
            file.write(hidden(traceback.format_exc()))
    except OSError:
        return ""
    return f" (traceback in {file.name})"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        # It quotes what was given, which `hidden` knows of the process's own arguments only.
        raise UserError(redacted(message))


def _parse(arguments: Sequence[str]) -> tuple[str, dict[str, object]]:
    parser = _Parser(prog="python -m pipeline", description=__doc__.splitlines()[0], allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)
    for command, table in options.COMMANDS.items():
        sub = commands.add_parser(command, allow_abbrev=False)
        for option in table:
            sub.add_argument(
                f"--{option.name}",
                metavar="VALUE",
                help=option.meaning + (f" (default: {option.default})" if option.default else ""),
            )
    known, unknown = parser.parse_known_args(arguments)
    given = {name: value for name, value in vars(known).items() if name != "command" and value is not None}
    # `mlflow run` passes on parameters that the entry point does not know: said with all other faults.
    names = [word.removeprefix("--").partition("=")[0] for word in unknown if word.startswith("--")]
    for name in filter(None, names):
        given.setdefault(name, "")
    if unknown and not any(names):
        raise UserError(f"unknown arguments: {' '.join(map(redacted, unknown))}")
    return known.command, given


if __name__ == "__main__":
    code = main()
    # Nothing is left to collect: looking through all that Keras and JAX have made would take seconds.
    gc.freeze()
    if code > _SIGNALLED:
        # What is being compiled cannot be stopped, and Python would wait for it; all else has ended.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
