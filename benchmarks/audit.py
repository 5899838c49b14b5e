"""Known vulnerabilities of what is installed, or of what the project asks for.

    pip install pip-audit
    python -m benchmarks.audit            the packages of this environment
    python -m benchmarks.audit --pins     those that pyproject.toml pins, extras included

Asks the service of pip-audit. Exit codes: 0 every package was looked up and none has a known vulnerability; 1
some have; 69 the audit could not be made, or not of every package, and those that were looked up have none.
That is not 0, as an audit that was not made says nothing: pip-audit itself ends with 0 where the service does
not know a package, as behind an index that answers for packages and not for their vulnerabilities.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FOUND = 1
UNAVAILABLE = 69
"""EX_UNAVAILABLE of sysexits.h: a service is not there."""

_PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"
_OWN = "regatta-search"
_SECONDS = 900


def main(arguments: Sequence[str] | None = None) -> int:
    """Looks up and prints; the exit code."""
    parser = argparse.ArgumentParser("python -m benchmarks.audit", description=__doc__.splitlines()[0])
    parser.add_argument("--pins", action="store_true", help="what pyproject.toml pins, not what is installed")
    pins = parser.parse_args(arguments).pins
    with tempfile.TemporaryDirectory() as folder:
        target = _pinned(Path(folder)) if pins else ["--path", sysconfig.get_path("purelib")]
        packages, reason = _audited(target)
    if reason:
        print(f"audit: not made: {reason}", file=sys.stderr)
        return UNAVAILABLE
    # It is on no index.
    packages = [package for package in packages if package["name"] != _OWN]
    findings = [line for package in packages for line in _findings(package)]
    skipped = [package for package in packages if "skip_reason" in package]
    looked_up = len(packages) - len(skipped)
    if findings or looked_up:
        print("\n".join(findings) or f"no known vulnerability among {looked_up} packages")
    if skipped:
        names = ", ".join(package["name"] for package in skipped)
        first = skipped[0]["skip_reason"]
        print(
            f"audit: not made of {len(skipped)} of {len(packages)} packages ({first}): {names}",
            file=sys.stderr,
        )
    return FOUND if findings else UNAVAILABLE if skipped else 0


def _pinned(folder: Path) -> list[str]:
    """What makes pip-audit look up the direct dependencies, without installing anything."""
    project = tomllib.loads(_PYPROJECT.read_text())["project"]
    extras = project["optional-dependencies"].values()
    file = folder / "requirements.txt"
    # A package may be pinned by an extra again, with an extra of its own.
    pins = {pin.partition("[")[0].partition("==")[0]: pin for pin in project["dependencies"]}
    for pin in (pin for extra in extras for pin in extra):
        pins.setdefault(pin.partition("[")[0].partition("==")[0], pin)
    file.write_text("\n".join(pins.values()))
    return ["--requirement", str(file), "--no-deps", "--disable-pip"]


def _audited(target: Sequence[str]) -> tuple[list[dict[str, Any]], str]:
    """What pip-audit found of each package, and why it could not look, if so."""
    program = shutil.which("pip-audit")
    if not program:
        return [], "there is no pip-audit on PATH: pip install pip-audit"
    command = [program, "--format", "json", "--progress-spinner", "off", *target]
    try:
        # Colours would stand in the reason.
        answer = subprocess.run(  # noqa: S603 (the program of that name)
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS,
            env={**os.environ, "NO_COLOR": "1"},
        )
    except subprocess.TimeoutExpired:
        return [], f"pip-audit did not end within {_SECONDS} seconds"
    try:
        # It ends with 1 for findings and for its own failure alike; only findings come as JSON.
        packages: list[dict[str, Any]] = json.loads(answer.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        lines = answer.stderr.strip().splitlines() or ["it said nothing"]
        return [], f"pip-audit ended with {answer.returncode}: {lines[-1]}"
    return packages, "" if packages else "pip-audit found no package to look up"


def _findings(package: dict[str, Any]) -> list[str]:
    """A line for each known vulnerability of a package."""
    return [
        f"{package['name']} {package['version']}: {', '.join([found['id'], *found.get('aliases', ())])},"
        f" {'mended in ' + ', '.join(found['fix_versions']) if found['fix_versions'] else 'not mended yet'}"
        for found in package.get("vulns", ())
    ]


if __name__ == "__main__":
    sys.exit(main())
