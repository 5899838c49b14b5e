"""A search space as the text of a file, where a task has it as values."""

import json
from collections.abc import Mapping
from typing import Any

Tables = Mapping[str, Mapping[str, Any]]
"""By the name of each table its keys and values: plain ones, lists of them, and mappings of them."""


def plain(value: Any) -> Any:
    """A value, or whatever mappings and lists hold, with Python's own numbers and lists for NumPy's."""
    match value:
        case Mapping():
            return {key: plain(part) for key, part in value.items()}
        case list() | tuple():
            return [plain(part) for part in value]
    return value.tolist() if hasattr(value, "tolist") else value


def text(tables: Tables, head: str = "") -> str:
    """The TOML text of tables, which reads back as the same values. head: lines of a comment to open it.

    Raises:
        TypeError: a value is none that TOML has.
    """
    parts = ["".join(f"# {line}".rstrip() + "\n" for line in head.splitlines())] if head else []
    for name, table in tables.items():
        lines = [_line(name, key, value) for key, value in table.items()]
        parts.append("\n".join([f"[{_key(name)}]", *lines]) + "\n")
    return "\n".join(parts)


def _line(table: str, key: str, value: Any) -> str:
    try:
        return f"{_key(key)} = {_value(plain(value))}"
    except TypeError:
        raise TypeError(
            f"{table}: {key} must be a text, a number, or a list or dict of these, but is {value!r}"
        ) from None


def _key(name: str) -> str:
    bare = name.isascii() and name.replace("-", "").replace("_", "").isalnum()
    return name if bare else _quoted(name)


def _value(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return _quoted(value)
        case int() | float():
            # Python's `1e-05`, `inf` and `nan` are numbers of TOML, too.
            return repr(value)
        case list() | tuple():
            return f"[{', '.join(map(_value, value))}]"
        case Mapping():
            return "{ " + ", ".join(f"{_key(key)} = {_value(part)}" for key, part in value.items()) + " }"
    raise TypeError


def _quoted(value: str) -> str:
    # JSON escapes as TOML does, but for one character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
