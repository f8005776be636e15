"""The config: its types, how it is composed with Hydra, and the components that it names."""

from __future__ import annotations

from pathlib import Path

GROUPS = ("job", "data", "model", "space", "search", "training", "executor", "tracking", "budget", "sweep")


def shipped() -> Path:
    """The folder with the configs that come with the package, in a checkout or an installed wheel."""
    package = Path(__file__).parents[1]
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"
