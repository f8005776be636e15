"""A real browser."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

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
