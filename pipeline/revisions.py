"""Which version of its tables a database holds: looked at before Optuna or MLflow opens it.

Both keep that version as Alembic does, in the table `alembic_version`. Opening is no way to ask: Optuna makes
what tables it misses before it looks at the version, and MLflow brings most older databases up to date at
once, unasked and without a copy, though another MLflow may still be serving them.
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, inspect, literal, select, table, text
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from pipeline.errors import UserError
from pipeline.secrets import redacted

_CONNECT_SECONDS = 10
_VERSIONS = "alembic_version"
# A table that each has had from its first version on, and one that has rows in every database in use: MLflow
# makes an experiment as soon as its tables are whole, and Optuna's without a study have nothing to lose.
_MARKS = {"Optuna": "version_info", "MLflow": "experiments"}
_USED = {"Optuna": "studies", "MLflow": "experiments"}
_ASSIGNED = re.compile(r"^(down_)?revision(?:\s*:.*?)?\s*=\s*(.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Keeper:
    """A library that keeps tables.

    name: `Optuna` or `MLflow`. version: the installed one. scripts: the folder of its Alembic revisions.
    upgrade: the command that brings tables up to date, without the URL that follows. variable: of the
    environment, that a URL with a password is given by.
    """

    name: str
    version: str
    scripts: Path
    upgrade: str
    variable: str


def check(url: str, place: str, keeper: Keeper) -> None:
    """Raises UserError if a database's tables are of another version of the library; nothing is changed.

    Args:
        url: SQLAlchemy's, of a server that answers; what it raises where it does not is raised.
        place: what the error begins with.
        keeper: the library that is going to open it.
    """
    tables, found, used = _read(url, _USED[keeper.name])
    if not tables:
        return
    known, head = revisions(keeper.scripts)
    if found == head or (not found and _MARKS[keeper.name] not in tables):
        return
    if not used and _MARKS[keeper.name] in tables and (not found or found in known):
        # Whoever was making it was killed: the library goes on with what is missing.
        return
    others = [name for name, mark in _MARKS.items() if name != keeper.name and mark in tables]
    if found and found not in known and (others or _MARKS[keeper.name] not in tables):
        owner = others[0] if others else "another program"
        raise UserError(f"{place}: is {owner}'s database: {keeper.name} needs one of its own")
    if found and found not in known:
        raise UserError(
            f"{place}: its tables are of a newer {keeper.name}: their version {found} is not known to"
            f" {keeper.name} {keeper.version}; use the {keeper.name} that they were made with, or another"
            " database"
        )
    raise UserError(
        f"{place}: its tables are of an older {keeper.name}: their version is {found or 'not numbered yet'},"
        f" and {keeper.name} {keeper.version} needs {head}; back the database up, and then run:"
        f" {keeper.upgrade} {_as_argument(url, keeper.variable)}"
    )


def revisions(scripts: Path) -> tuple[frozenset[str], str]:
    """Every revision of a folder of Alembic's, and the last of them.

    Read as text: Alembic runs each file, and MLflow's take it longer than all else that opening a store does.

    Raises:
        LookupError: the folder holds no revisions, or has several last ones.
    """
    known, followed = set[str](), set[str]()
    for file in scripts.glob("*.py"):
        for down, value in _ASSIGNED.findall(file.read_text(encoding="utf-8")):
            (followed if down else known).update(re.findall(r"[\"']([^\"']+)[\"']", value))
    heads = known - followed
    if len(heads) != 1:
        raise LookupError(f"{scripts}: must hold revisions with one last one, but has {len(heads)} such")
    return frozenset(known), heads.pop()


def _read(url: str, filled: str) -> tuple[frozenset[str], str, bool]:
    """The names of a database's tables, their version, and whether one of them, `filled`, has a row.

    None of an SQLite file that is not there.
    """
    parsed = make_url(url)
    sqlite = parsed.get_backend_name() == "sqlite"
    if sqlite and not Path(parsed.database or "").is_file():
        return frozenset(), "", False
    # psycopg waits for ever by default.
    postgresql = parsed.get_backend_name() == "postgresql"
    arguments: dict[str, Any] = {"connect_timeout": _CONNECT_SECONDS} if postgresql else {}
    with create_engine(url, connect_args=arguments, poolclass=NullPool).connect() as connection:
        tables = frozenset(inspect(connection).get_table_names())
        rows = connection.execute(text(f"select version_num from {_VERSIONS}")) if _VERSIONS in tables else ()  # noqa: S608  # a name of our own
        version = ", ".join(sorted(str(version) for (version,) in rows))
        some = select(literal(1)).select_from(table(filled)).limit(1)
        used = filled in tables and connection.execute(some).first() is not None
        return tables - {_VERSIONS}, version, used


def _as_argument(url: str, variable: str) -> str:
    """A URL as a command takes it, by way of the variable where it has a password."""
    return shlex.quote(url) if redacted(url) == url else f'"${variable}"'
