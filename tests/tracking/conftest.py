"""Stores whose tables MLflow makes."""

from __future__ import annotations

import pytest

from cnnsweep.tracking import sqlite, store


@pytest.fixture(autouse=True)
def _tables_made_by_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "create_tables", sqlite.create_tables)
