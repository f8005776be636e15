"""Passwords in addresses and error messages: removed before anything can show or store them."""

from __future__ import annotations

import os
import re
import urllib.parse
from collections.abc import Mapping
from typing import TypeVar

from cnnsweep.config.schema import Section
from cnnsweep.errors import UserError

DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
Value = TypeVar("Value")


def redact(value: Value) -> Value:
    """Return text, a config, or a tree of mappings and lists, with the credentials in its URIs replaced.

    >>> redact({"uri": "http://ann:secret@host:5000"})
    {'uri': 'http://***@host:5000'}
    """
    found: object = value
    if isinstance(value, str):
        found = re.sub(r"://[^/\s'\"]*@", "://***@", value)
    elif isinstance(value, Section):
        keys = (*type(value).model_fields, *(value.model_extra or {}))
        found = value.replace(**{key: redact(getattr(value, key)) for key in keys})
    elif isinstance(value, Mapping):
        found = {key: redact(item) for key, item in value.items()}
    elif isinstance(value, (list, tuple)):
        found = [redact(item) for item in value]
    return found  # type: ignore[return-value]


def without_credentials(uri: str) -> str:
    """Return a store's URI; the credentials of a server's move into MLflow's environment variables.

    From there no message, log or list of processes can show them. Raises UserError for anything but a store's URI.
    """
    try:
        parts = urllib.parse.urlsplit(uri)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, a bracket too many
        raise UserError(f"tracking.uri: '{redact(uri)}' is no address; it is like http://HOST:5000") from None
    if parts.scheme.split("+")[0] in DATABASES:
        return uri
    if not valid:
        raise UserError(
            f"tracking.uri: '{redact(uri)}' is neither http(s)://HOST:PORT nor a database "
            f"({', '.join(f'{name}://' for name in DATABASES)}){_guess(uri)}"
        )
    if parts.query or parts.fragment:
        address = redact(parts._replace(query="", fragment="").geturl().rstrip("/"))
        raise UserError(f"tracking.uri: '{redact(uri)}' is a page of the server; its address is {address}")
    credentials, _, host = parts.netloc.rpartition("@")
    if credentials and credentials != "***":
        user, _, password = credentials.partition(":")
        os.environ["MLFLOW_TRACKING_USERNAME"] = urllib.parse.unquote(user)
        os.environ["MLFLOW_TRACKING_PASSWORD"] = urllib.parse.unquote(password)
    return parts._replace(netloc=host).geturl().rstrip("/")


def brief(error: object, most: int = 200) -> str:
    """Return the reason of an error in one line of at most `most` characters, without credentials.

    >>> brief(OSError("Max retries exceeded (Caused by X(Y: failed: [Errno 111] Connection refused))"))
    '[Errno 111] Connection refused'
    """
    message = redact(str(error)).strip()
    if found := re.search(r"\[Errno -?\d+\] [\w ]+|CERTIFICATE_VERIFY_FAILED[\w: ,'-]*|timed out", message):
        return found[0][:most]
    lines = [line for line in message.splitlines() if not line.startswith("(raised as a result")]
    line = lines[0] if lines else type(error).__name__
    return line if len(line) <= most else f"{line[: most - 1]}…"


def _guess(uri: str) -> str:
    """
    >>> _guess("gpu1:5000"), _guess("htp://gpu1:5000"), _guess("ftp://gpu1")
    (", did you mean 'http://gpu1:5000'?", ", did you mean 'http://gpu1:5000'?", '')
    """
    found = re.fullmatch(r"(?:ht+p:?/*)?([\w.-]+:\d+)/?", uri)
    return f", did you mean 'http://{found[1]}'?" if found else ""
