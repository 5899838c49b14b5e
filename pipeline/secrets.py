"""Texts without the passwords they may carry, fit to be shown, logged and stored."""

import re
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


def first_line(error: Exception) -> str:
    """An error's first line, without secrets; its kind where it says nothing."""
    lines = [line for line in str(error).strip().splitlines() if not line.startswith("(raised as a result")]
    lines = lines or [type(error).__name__]
    # A driver may cut a URL elsewhere, and take part of a password for the host.
    return _BEFORE_HOST.sub("***@", redacted(lines[0]))
