"""Passwords in addresses: taken out before anything can show or store them."""

from __future__ import annotations

import os
import re
import urllib.parse
from collections.abc import Mapping
from typing import Any

from cnnsweep.errors import UserError

DATABASES = ("sqlite", "postgresql", "mysql", "mssql")


def redact(value: Any) -> Any:
    """Return `value` (text, or a tree of mappings and lists) with the credentials in its URIs replaced.

    >>> redact({"uri": "http://ann:secret@host:5000"})
    {'uri': 'http://***@host:5000'}
    """
    if isinstance(value, str):
        return re.sub(r"://[^/\s'\"]*@", "://***@", value)
    if isinstance(value, Mapping):
        return {key: redact(item) for key, item in value.items()}
    return [redact(item) for item in value] if isinstance(value, (list, tuple)) else value


def without_credentials(uri: str) -> str:
    """Return a store's URI, a server's without its credentials, which go into MLflow's environment variables.

    No message, log or process list can show them from there. Raises UserError for what is no URI of a store.
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


def _guess(uri: str) -> str:
    """
    >>> _guess("gpu1:5000"), _guess("htp://gpu1:5000"), _guess("ftp://gpu1")
    (", did you mean 'http://gpu1:5000'?", ", did you mean 'http://gpu1:5000'?", '')
    """
    found = re.fullmatch(r"(?:ht+p:?/*)?([\w.-]+:\d+)/?", uri)
    return f", did you mean 'http://{found[1]}'?" if found else ""
