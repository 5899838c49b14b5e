"""The audit of dependencies: findings, none, and what must not look like none."""

import itertools
import json
import re
import sys
import sysconfig
import tomllib
from pathlib import Path
from typing import Any

import pytest

from benchmarks import audit

ROOT = Path(__file__).parent.parent
CLEAN = {"name": "numpy", "version": "2.4.6", "vulns": []}
OWN = {"name": "regatta-search", "skip_reason": "Dependency not found on PyPI"}
SKIPPED = {"name": "jinja2", "skip_reason": "Dependency not found on PyPI and could not be audited"}
BAD = {
    "name": "pillow",
    "version": "13.0.0",
    "vulns": [
        {"id": "PYSEC-2026-1", "fix_versions": ["13.0.1"], "aliases": ["CVE-2026-1"], "description": "…"},
        {"id": "PYSEC-2026-2", "fix_versions": [], "aliases": [], "description": "…"},
    ],
}


@pytest.fixture
def auditor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a pip-audit on PATH that gives one answer, and writes down what it was asked."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))

    def put(out: str, code: int = 0, err: str = "") -> None:
        file = programs / "pip-audit"
        file.write_text(
            f"#!{sys.executable}\nimport pathlib, sys\n"
            f"asked = pathlib.Path({str(tmp_path / 'asked')!r})\nasked.write_text(' '.join(sys.argv[1:]))\n"
            "if '--requirement' in sys.argv:\n"
            "    file = pathlib.Path(sys.argv[sys.argv.index('--requirement') + 1])\n"
            f"    pathlib.Path({str(tmp_path / 'pins')!r}).write_text(file.read_text())\n"
            f"sys.stdout.write({out!r})\nsys.stderr.write({err!r})\nsys.exit({code})\n"
        )
        file.chmod(0o755)

    return put


def answer(*packages: dict[str, Any]) -> str:
    return json.dumps({"dependencies": packages, "fixes": []})


def test_none_found(auditor: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    auditor(answer(CLEAN, OWN), err="No known vulnerabilities found\n")
    assert audit.main([]) == 0
    assert capsys.readouterr() == ("no known vulnerability among 1 packages\n", "")
    (path,) = re.findall(r"--path (\S+)", (tmp_path / "asked").read_text())
    assert path == sysconfig.get_path("purelib"), "the environment that asks"


def test_findings_are_told_a_line_each(auditor: Any, capsys: pytest.CaptureFixture[str]) -> None:
    auditor(answer(CLEAN, BAD, SKIPPED), 1, "Found 2 known vulnerabilities in 1 package\n")
    assert audit.main([]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "pillow 13.0.0: PYSEC-2026-1, CVE-2026-1, mended in 13.0.1",
        "pillow 13.0.0: PYSEC-2026-2, not mended yet",
    ]
    assert "jinja2" in err, "what was not looked up is told beside the findings"


def test_a_service_that_does_not_answer_is_no_clean_audit(
    auditor: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    # pip-audit 2.10 ends with 1 for this, as it does for findings.
    lines = "WARNING:pip_audit._cli:a warning\nERROR:pip_audit._cli:Could not connect to the feed\n"
    auditor("", 1, lines)
    assert audit.main([]) == 69
    told = "audit: not made: pip-audit ended with 1: ERROR:pip_audit._cli:Could not connect to the feed\n"
    assert capsys.readouterr() == ("", told)


def test_a_package_that_was_not_looked_up_is_no_clean_audit(
    auditor: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    # pip-audit 2.10 ends with 0 for this, and says that none was found.
    auditor(answer(CLEAN, SKIPPED), err="No known vulnerabilities found\n")
    assert audit.main([]) == 69
    out, err = capsys.readouterr()
    assert out == "no known vulnerability among 1 packages\n"
    assert err == (
        "audit: not made of 1 of 2 packages (Dependency not found on PyPI and could not be audited): jinja2\n"
    )


def test_an_audit_of_no_package_claims_nothing(auditor: Any, capsys: pytest.CaptureFixture[str]) -> None:
    auditor(answer(SKIPPED, OWN))
    assert audit.main([]) == 69
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("audit: not made of 1 of 1 packages")


@pytest.mark.parametrize("out", ["", "[]", "{}", "not JSON", '{"dependencies": []}'])
def test_an_answer_that_says_nothing_is_no_clean_audit(
    auditor: Any, capsys: pytest.CaptureFixture[str], out: str
) -> None:
    auditor(out)
    assert audit.main([]) == 69
    assert capsys.readouterr().err.startswith("audit: not made: pip-audit ")


def test_without_pip_audit_it_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert audit.main([]) == 69
    assert capsys.readouterr().err == (
        "audit: not made: there is no pip-audit on PATH: pip install pip-audit\n"
    )


def test_pip_audit_that_never_ends_is_ended(
    auditor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(audit, "_SECONDS", 0.2)
    file = tmp_path / "bin" / "pip-audit"
    file.write_text(f"#!{sys.executable}\nimport time\ntime.sleep(60)\n")
    file.chmod(0o755)
    assert audit.main([]) == 69
    assert "did not end within 0.2 seconds" in capsys.readouterr().err


def test_every_pin_is_looked_up_once(auditor: Any, tmp_path: Path) -> None:
    auditor(answer(CLEAN))
    assert audit.main(["--pins"]) == 0
    assert {"--no-deps", "--disable-pip"} <= set((tmp_path / "asked").read_text().split())
    pins = (tmp_path / "pins").read_text().splitlines()
    names = [re.split(r"[\[=]", pin)[0] for pin in pins]
    assert len(names) == len(set(names)), "pip-audit refuses a package that stands twice"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    assert set(names) == {re.split(r"[\[=]", pin)[0] for pin in declared}


def test_a_wrong_argument_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        audit.main(["--pin=x"])
