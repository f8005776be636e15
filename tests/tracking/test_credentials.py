"""Credentials in addresses: shown and stored nowhere, whichever way the address is written."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from tracked_sweeps import base_config, settings

from cnnsweep import cli
from cnnsweep.errors import UserError
from cnnsweep.sweep.session import Outcome
from cnnsweep.tracking import credentials
from cnnsweep.tracking.credentials import VARIABLES, redact, shown, without_credentials
from cnnsweep.tracking.store import find_store

SHOWN = {
    "http://ann:s3cr3t@host:5000": "http://***@host:5000",
    "https://ann:s3%2Fcr3t@host/mlflow": "https://***@host/mlflow",
    "https://ann:s3/cr3t@host": "https://***@host",
    "http://ann:s3?cr3t@host": "http://***@host",
    "http://ann:s3#cr3t@host": "http://***@host",
    "http://s3cr3t@[::1]:5000": "http://***@[::1]:5000",
    "https://host/data.zip?X-Amz-Signature=s3cr3t&part=1": "https://host/data.zip?X-Amz-Signature=***&part=1",
    "postgresql://ann:s3cr3t@host/db": "postgresql://***@host/db",
    "postgresql+psycopg2://ann:s3/cr3t@host:5432/db?sslmode=require": "postgresql+psycopg2://***@host:5432/db?sslmode=require",
    "postgresql://host/db?user=ann&password=s3cr3t": "postgresql://***@host/db",
    "postgresql:///db?host=/run/pg&sslpassword=s3cr3t": "postgresql://***@/db?host=%2Frun%2Fpg",
    "postgresql://ann:s3@cr3t@host/db": "postgresql://***@host/db",
    "postgresql://ann:s3 cr'3\"t@host/db": "postgresql://***@host/db",
    "postgresql://ann:s3cr3t@host:port/db": "postgresql://***",
    "mysql+pymysql://ann:s3cr3t@host/db?charset=utf8": "mysql+pymysql://***@host/db?charset=utf8",
    "mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BPWD%3Ds3cr3t": "mssql+pyodbc://***@/",
}  # fmt: skip
"""Addresses with a password, and how each is shown."""
PLAIN = (
    "http://host:5000/a@b",
    "https://host/x?part=1#y",
    "postgresql://host:5432/db",
    "sqlite:////home/a@b/c:d@e/mlflow.db",
    "file:///srv/a@b",
    "s3://bucket/key@2",
)
"""Addresses without one."""


@pytest.fixture(autouse=True)
def own_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "_lent", None)
    monkeypatch.setattr(credentials, "_known", {})
    for name in (*VARIABLES, "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("address", SHOWN)
def test_an_address_is_shown_without_its_password(address: str) -> None:
    assert shown(address) == SHOWN[address]
    assert shown(SHOWN[address]) == SHOWN[address]
    config = base_config().replace(tracking=settings(Path(), address))
    assert redact(config).tracking.uri == SHOWN[address]
    assert redact(config.plain())["tracking"]["uri"] == SHOWN[address]
    assert redact(config).replace(tracking=config.tracking) == config


@pytest.mark.parametrize("address", PLAIN)
def test_other_addresses_are_shown_as_they_are(address: str) -> None:
    assert shown(address) == redact(address) == address


@pytest.mark.parametrize("address", SHOWN)
def test_no_text_has_the_password_once_the_address_was_used(address: str) -> None:
    with contextlib.suppress(UserError):
        without_credentials(address)
    command = ["python -m cnnsweep", f"tracking.uri={address}", f'tracking.uri="{address}"', f"{address}: no answer"]
    assert not [text for text in redact(command) if "s3" in text.replace("b.s3", "") or "cr3t" in text]
    assert "cr3t" not in redact(" ".join(command))


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("http://ann:12/s3cr3t@host", r"'http://\*\*\*@host' is no address; in a password write @ as %40, / as %2F"),
        ("https://ann:s3/cr3t@host", r"'https://\*\*\*@host' is no address; .*; in a password write"),
        ("postgresql://ann:s3@cr3t@host/db", r"'postgresql://\*\*\*@host/db' is no address of a database; in a pass"),
        ("postgresql://ann:s3cr3t@host:port/db", r"'postgresql://\*\*\*' is no address of a database"),
    ],
)
def test_an_address_that_ends_within_its_password(address: str, expected: str) -> None:
    with pytest.raises(UserError, match=f"^tracking.uri: {expected}") as caught:
        without_credentials(address)
    assert "cr3t" not in str(caught.value)


def test_one_server_s_password_is_not_sent_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLES[0], "from the shell")
    own = ("from the shell", None)
    assert without_credentials("http://ann:s3%20cr3t@one:5000/") == "http://one:5000"
    assert tuple(map(os.environ.get, VARIABLES)) == ("ann", "s3 cr3t")
    assert without_credentials("http://***@one:5000") == "http://one:5000"  # as the journal has it
    assert tuple(map(os.environ.get, VARIABLES)) == ("ann", "s3 cr3t")
    for other in ("http://two:5000", "http://***@two:5000", "postgresql://host/db"):
        without_credentials("http://ann:s3%20cr3t@one:5000/")
        without_credentials(other)
        assert tuple(map(os.environ.get, VARIABLES)) == own
    without_credentials("http://ann:a@one:5000")
    without_credentials("http://bob:b@two:5000")
    assert tuple(map(os.environ.get, VARIABLES)) == ("bob", "b")
    without_credentials("http://one:5000")
    assert tuple(map(os.environ.get, VARIABLES)) == own


def test_a_stored_address_takes_the_credentials_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stored = shown("postgresql://ann:s3/cr3t@host/db?sslmode=require")
    assert without_credentials(stored) == "postgresql://host/db?sslmode=require"  # libpq then reads PGUSER, PGPASSWORD
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://ann:s3/cr3t@another/db?sslmode=require")
    assert without_credentials(stored) == "postgresql://host/db?sslmode=require"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://ann:s3/cr3t@host/db?sslmode=require")
    assert without_credentials(stored) == "postgresql://ann:s3/cr3t@host/db?sslmode=require"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:s3cr3t@host:5000")
    assert without_credentials("http://***@host:5000") == "http://host:5000"
    assert os.environ[VARIABLES[1]] == "s3cr3t"


def test_a_database_that_wants_a_password_says_where_it_is_taken_from(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is no MLflow store .*\nno password is stored: .* PGUSER and PGPASSWORD$"):
        find_store(settings(tmp_path, "postgresql+psycopg2://***@127.0.0.1:1/db"))


def test_the_config_is_printed_without_the_password(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--cfg", "tracking=server", "tracking.uri=postgresql://ann:s3/cr3t@host/db"]) == 0
    assert "uri: postgresql://***@host/db" in capsys.readouterr().out


def test_an_outcome_does_not_show_the_credentials_that_it_holds(tmp_path: Path) -> None:
    config = base_config().replace(tracking=settings(tmp_path, "postgresql://ann:s3cr3t@host/db"))
    assert "s3cr3t" not in repr(Outcome("x", tmp_path, "postgresql://***@host/db", config, None))  # type: ignore[arg-type]
