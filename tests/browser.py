"""A real browser, and what the scripts of its pages send."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest


def drawn(address: str, profile: Path, seconds: int = 30, names: Mapping[str, str] | None = None) -> str:
    """The page as Chromium shows it, once its scripts have run for so long by its own clock.

    `names` are host names that only this browser knows, with their addresses.
    """
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or pytest.skip("there is no Chromium")
    rules = ", ".join(f"MAP {name} {to}" for name, to in (names or {}).items())
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
             "--disable-background-networking", "--disable-component-update", "--window-size=1400,12000",
             f"--virtual-time-budget={1000 * seconds}", f"--user-data-dir={profile}", "--dump-dom",
             *([f"--host-resolver-rules={rules}"] if rules else [])]  # fmt: skip
    return subprocess.run([chromium, *flags, address], capture_output=True, text=True, timeout=120).stdout


def posted(address: str, body: Mapping[str, Any], headers: Mapping[str, str]) -> int:
    """The status of the answer when a page posts this as JSON."""
    given = {**headers, "Content-Type": "application/json"}
    request = urllib.request.Request(address, json.dumps(body).encode(), given)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
