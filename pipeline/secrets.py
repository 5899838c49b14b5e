"""Texts without the passwords they may carry, fit to be shown, logged and stored."""

import logging
import os
import re
import sys
from collections.abc import Iterator
from urllib.parse import unquote

# user:password@host, after a scheme or without any; the password may itself hold / ? # and @.
_USER = re.compile(r"(://|^(?!.*://))([^:/?#@\s]*):.*@")
# As a part of a query, or of a driver's own connection text.
_PART = re.compile(r"\b(password|passwd|pwd|token|secret)=[^&\s]*", re.IGNORECASE)

_BEFORE_HOST = re.compile(r"[^\s'\"/]+@")


def redacted(text: str) -> str:
    """The text with *** in place of every password."""
    for plain in (text, unquote(text)):
        hidden = _PART.sub(r"\1=***", _USER.sub(r"\1\2:***@", plain))
        if hidden != plain:
            return hidden
    return text


# What passwords come in, alone or as part of a URL.
_VARIABLES = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_REGISTRY_URI",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "PIPELINE_STORAGE",
    "PGPASSWORD",
)
_IN_URL = re.compile(r"://[^:/?#@\s]*:(.*)@")
_IN_QUERY = re.compile(r"\b(?:password|passwd|pwd|token|secret)=([^&\s]+)", re.IGNORECASE)
# Shorter ones would be found in any text, and tell as little.
_LEAST = 4


def hidden(text: str) -> str:
    """The text with *** in place of every password that this process was given, wherever it stands.

    Those are of the environment's variables and of URLs in the command line, as they are written there and
    as they are meant (`%40` for `@`). Lines stay lines: a whole traceback may be given.
    """
    for secret in sorted(set(_given()), key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


class Hiding(logging.Filter):
    """Lets every log record through, without the passwords."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Always true."""
        record.msg, record.args = hidden(record.getMessage()), ()
        if record.exc_info:
            # What formats the record keeps a text that is there.
            record.exc_text = hidden(logging.Formatter().formatException(record.exc_info))
        return True


HIDING = Hiding()
"""Of all handlers, one."""


def _given() -> Iterator[str]:
    for name in _VARIABLES:
        value = os.environ.get(name, "")
        found = _in_url(value) if "URI" in name or name == "PIPELINE_STORAGE" else [value]
        yield from _forms(found)
    for argument in sys.argv[1:]:
        if "://" in argument:
            yield from _forms(_in_url(argument))


def _in_url(text: str) -> list[str]:
    return [*_IN_URL.findall(text), *_IN_QUERY.findall(text)]


def _forms(secrets: list[str]) -> Iterator[str]:
    yield from (one for secret in secrets for one in (secret, unquote(secret)) if len(one) >= _LEAST)


def first_line(error: Exception) -> str:
    """An error's first line, without secrets; its kind where it says nothing."""
    lines = [line for line in str(error).strip().splitlines() if not line.startswith("(raised as a result")]
    lines = lines or [type(error).__name__]
    # A driver may cut a URL elsewhere, and take part of a password for the host.
    return _BEFORE_HOST.sub("***@", redacted(hidden(lines[0])))
