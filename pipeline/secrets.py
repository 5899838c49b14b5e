"""Texts without the passwords they may carry, fit to be shown, logged and stored."""

import logging
import os
import re
import sys
from collections.abc import Iterator
from urllib.parse import unquote

# user:password@host, after a scheme or without any; the password may itself hold / ? # and @.
_USER = re.compile(r"(://|^(?!.*://))([^:/?#@\s]*):.*@")
# Alone, where it is a token that a server of the web takes for a password.
_ALONE = re.compile(r"(https?://)([^:/?#@\s]+)@", re.IGNORECASE)
# As a part of a query, or of a driver's own connection text, which may quote it. A name may have more words
# before the telling one, which for the short ones must be a word of its own: `monkey` is no key.
_PART = re.compile(
    r"""
    (?<![\w.-])
    ( [\w.-]*(?:password|passwd|pwd|passphrase|token|secret|signature|(?:api|access|account|secret)key)
    | (?:[\w.-]*[_.-])?(?:key|sig)
    )=
    ( '(?:[^'\\]|\\.)*' | "(?:[^"\\]|\\.)*" | [^&\s]* )
    """,
    re.IGNORECASE | re.VERBOSE,
)

_BEFORE_HOST = re.compile(r"[^\s'\"/]+@")


def redacted(text: str) -> str:
    """The text with *** in place of every password, token, key or signature that its place tells as such."""
    for plain in (text, unquote(text)):
        hidden = _PART.sub(r"\1=***", _ALONE.sub(r"\1***@", _USER.sub(r"\1\2:***@", plain)))
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
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
)
_IN_URL = re.compile(r"://[^:/?#@\s]*:(.*)@")
# Shorter ones would be found in any text, and tell as little. A short user alone may be a person's name.
_LEAST, _LEAST_ALONE = 4, 8


def hidden(text: str) -> str:
    """The text with *** in place of every password that this process was given, wherever it stands.

    Those are of the environment's variables and of URLs in the command line, as they are written there and
    as they are meant (`%40` for `@`). A user without a password in `http://` counts as one from 8 letters on.
    Lines stay lines: a whole traceback may be given.
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
    alone = [user for _, user in _ALONE.findall(text) if len(user) >= _LEAST_ALONE]
    return [*_IN_URL.findall(text), *alone, *(_unquoted(value) for _, value in _PART.findall(text))]


def _unquoted(value: str) -> str:
    return value[1:-1] if value[:1] in ("'", '"') and value[-1:] == value[0] else value


def _forms(secrets: list[str]) -> Iterator[str]:
    yield from (one for secret in secrets for one in (secret, unquote(secret)) if len(one) >= _LEAST)


def first_line(error: BaseException) -> str:
    """An error's first line, without secrets; its kind where it says nothing."""
    lines = [line for line in str(error).strip().splitlines() if not line.startswith("(raised as a result")]
    lines = lines or [type(error).__name__]
    # A driver may cut a URL elsewhere, and take part of a password for the host.
    return _BEFORE_HOST.sub("***@", redacted(hidden(lines[0])))
