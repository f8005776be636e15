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
HARMLESS = ("charset", "host", "port", "sslmode", "sslrootcert")
"""Of a database's address, the parameters that are shown; all others may be secrets."""
SECRET = re.compile(r"(pass|pwd|secret|token|credential|signature)", re.IGNORECASE)
"""Of any other address, the parameters that are not shown."""
VARIABLES = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
HIDDEN = "***"
Value = TypeVar("Value")
_known: dict[str, str] = {}
"""The addresses with credentials that were used, and how they are shown: in a text no parser could find their ends."""
_lent: tuple[str, dict[str, str | None]] | None = None
"""The server whose credentials are in the environment, and the variables as they were before."""


def redact(value: Value) -> Value:
    """Return text, a config, or a tree of mappings and lists, with the credentials in its addresses replaced.

    >>> redact({"uri": "http://ann:secret@host:5000"})
    {'uri': 'http://***@host:5000'}
    """
    found: object = value
    if isinstance(value, str):
        found = _redact_text(value)
    elif isinstance(value, Section):
        keys = (*type(value).model_fields, *(value.model_extra or {}))
        found = value.replace(**{key: _redact_key(key, getattr(value, key)) for key in keys})
    elif isinstance(value, Mapping):
        found = {key: _redact_key(str(key), item) for key, item in value.items()}
    elif isinstance(value, (list, tuple)):
        found = [redact(item) for item in value]
    return found  # type: ignore[return-value]


def shown(address: str) -> str:
    """Return an address without its credentials, found by parsing it as its reader does.

    >>> shown("postgresql://ann:a/b@host/db?sslmode=require"), shown("postgresql://host/db?user=ann&password=a")
    ('postgresql://***@host/db?sslmode=require', 'postgresql://***@host/db')
    """
    scheme, separator, rest = address.partition("://")
    if not separator or scheme.lower().startswith("sqlite"):
        return address
    if scheme.lower().split("+")[0] in DATABASES:
        return _shown_database(address)
    authority, path, query = re.fullmatch(r"([^/?#]*)([^?]*)(.*)", rest, re.DOTALL).groups()  # type: ignore[union-attr]
    if "@" in authority:
        authority = f"{HIDDEN}@{authority.rpartition('@')[2]}"
    elif "@" in rest and not re.fullmatch(r"(\[[^\]]*\]|[^:]*)(:\d*)?", authority):
        # What looks like a port is the beginning of a password with a slash in it.
        return f"{scheme}://{HIDDEN}@{rest.rpartition('@')[2]}"
    hidden = [pair.partition("=")[0] + f"={HIDDEN}" if SECRET.search(pair) else pair for pair in query.split("&")]
    return f"{scheme}://{authority}{path}{'&'.join(hidden)}"


def without_credentials(uri: str) -> str:
    """Return a store's URI; the credentials of a server's move into MLflow's environment variables.

    From there no message, log or list of processes can show them; they go when another store is opened. Those of a
    database stay in its URI. An address from a journal takes those of MLFLOW_TRACKING_URI, where it is the same one.
    Raises UserError for anything but a store's URI.
    """
    given = os.environ.get("MLFLOW_TRACKING_URI", "")
    uri = given if shown(given) == uri else uri
    if (hidden := shown(uri)) != uri:
        _known[uri] = hidden
    scheme = uri.partition("://")[0].lower().split("+")[0]
    if scheme in DATABASES:
        _lend("", "")
        return _database(uri)
    try:
        parts = urllib.parse.urlsplit(uri)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, a bracket too many
        raise UserError(f"tracking.uri: '{hidden}' is no address; it is like http://HOST:5000{_escapes(uri)}") from None
    if not valid:
        raise UserError(
            f"tracking.uri: '{hidden}' is neither http(s)://HOST:PORT nor a database "
            f"({', '.join(f'{name}://' for name in DATABASES)}){_guess(uri)}"
        )
    if "@" in parts.path:
        rest = uri.rpartition("@")[2]
        raise UserError(f"tracking.uri: '{parts.scheme}://{HIDDEN}@{rest}' is no address{_escapes(uri)}")
    if parts.query or parts.fragment:
        address = shown(parts._replace(query="", fragment="").geturl().rstrip("/"))
        raise UserError(f"tracking.uri: '{hidden}' is a page of the server; its address is {address}")
    credentials, _, host = parts.netloc.rpartition("@")
    _lend(host, credentials if credentials != HIDDEN else "")
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


def _redact_key(key: str, value: object) -> object:
    return shown(value) if key == "uri" and isinstance(value, str) else redact(value)


def _redact_text(text: str) -> str:
    if "://" not in text:
        return text
    for address, hidden in _known.items():
        text = text.replace(address, hidden)
    return re.sub(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]*", lambda found: shown(found[0]), text)


def _shown_database(address: str) -> str:
    import sqlalchemy as sa

    scheme, _, rest = address.partition("://")
    try:
        url = sa.make_url(address)
    except (sa.exc.ArgumentError, ValueError):
        return f"{scheme}://{HIDDEN}"
    if "@" in f"{url.host}{url.database}":  # it ends elsewhere than its writer meant
        return f"{scheme}://{HIDDEN}@{rest.rpartition('@')[2].partition('?')[0]}"
    query = {key: value for key, value in url.query.items() if key in HARMLESS}
    if not (url.username or url.password or len(query) < len(url.query)):
        return address
    bare = sa.URL.create(url.drivername, host=url.host, port=url.port, database=url.database, query=query)
    return bare.render_as_string().replace("://", f"://{HIDDEN}@", 1)


def _database(uri: str) -> str:
    """A database's URI to connect with; where credentials were removed, its driver takes those of the environment."""
    import sqlalchemy as sa

    try:
        url = sa.make_url(uri)
    except (sa.exc.ArgumentError, ValueError):
        raise UserError(f"tracking.uri: '{shown(uri)}' is no address of a database{_escapes(uri)}") from None
    if url.username is not None and "@" in f"{url.host}{url.database}":
        raise UserError(f"tracking.uri: '{shown(uri)}' is no address of a database{_escapes(uri)}")
    return uri.replace(f"{HIDDEN}@", "", 1) if url.username == HIDDEN else uri


def _lend(host: str, credentials: str) -> None:
    """Put a server's credentials into the environment, and take another's out."""
    global _lent
    if _lent and (credentials or _lent[0] != host):
        for name, value in _lent[1].items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
        _lent = None
    if credentials:
        _lent = (host, {name: os.environ.get(name) for name in VARIABLES})
        user, _, password = credentials.partition(":")
        os.environ.update(zip(VARIABLES, map(urllib.parse.unquote, (user, password)), strict=True))


def _escapes(uri: str) -> str:
    return "; in a password write @ as %40, / as %2F and : as %3A" if "@" in uri else ""


def _guess(uri: str) -> str:
    """
    >>> _guess("gpu1:5000"), _guess("htp://gpu1:5000"), _guess("ftp://gpu1")
    (", did you mean 'http://gpu1:5000'?", ", did you mean 'http://gpu1:5000'?", '')
    """
    found = re.fullmatch(r"(?:ht+p:?/*)?([\w.-]+:\d+)/?", uri)
    return f", did you mean 'http://{found[1]}'?" if found else ""
