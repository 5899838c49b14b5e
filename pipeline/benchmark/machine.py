"""What a measurement was made on."""

import datetime
import importlib.metadata
import platform
from collections.abc import Sequence
from pathlib import Path

from pipeline.engines import backend


def described(packages: Sequence[str] = ("keras", "jax", "tensorflow")) -> str:
    """Processor, cores, versions of Python and packages, and the day; in one line."""
    versions = [f"Python {platform.python_version()}"]
    for package in packages:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"no {package}")
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    return f"{_processor()}, {backend.cores()} cores; {', '.join(versions)}; {today}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
